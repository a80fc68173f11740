//! What belongs to a source tree is what git says: the choice is compared with
//! `git ls-files --cached --others --exclude-standard` over trees that are made
//! up, and over this repository.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use artifacts::source::{Personal, SourceSelection, select_source};
use proptest::prelude::*;

/// A person with a home directory of their own and no settings of the machine.
struct Person {
    home: tempfile::TempDir,
}

impl Person {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn personal(&self) -> Personal {
        Personal { home: Some(self.home.path().to_owned()), ..Personal::default() }
    }

    fn git(&self, dir: &Path, args: &[&str]) -> Vec<u8> {
        let mut git = Command::new("git");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_")) {
            git.env_remove(name);
        }
        git.args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"]).args(args).current_dir(dir);
        git.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME");
        let out = git.output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// What git lists and is there; a repository within is one name.
    fn listed(&self, dir: &Path) -> Vec<String> {
        let out = self.git(dir, &["ls-files", "-co", "--exclude-standard", "-z"]);
        let names = out.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap());
        let there = |name: &String| {
            // A link to somewhere else where a directory is tracked has nothing of it.
            let above = Path::new(name).ancestors().skip(1);
            dir.join(name).symlink_metadata().is_ok_and(|meta| !meta.is_dir())
                && above.into_iter().all(|above| !dir.join(above).is_symlink() || above == Path::new(""))
        };
        names.filter(there).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn chosen(&self, dir: &Path) -> SourceSelection {
        select_source(dir, &[], &[], &self.personal()).unwrap()
    }

    fn init(&self, dir: &Path, args: &[&str]) {
        fs::create_dir_all(dir).unwrap();
        self.git(dir, &[&["init", "-q", "--template="], args].concat());
    }
}

fn put(root: &Path, path: &str, text: &str) -> PathBuf {
    let place = root.join(path);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, text).unwrap();
    place
}

const NAMES: [&str; 22] = [
    "a", "b", "ab", "abc", "A", "B.log", "b.log", "x.o", "data", "foo", "[z]", "z", "a b", "b ", "é", "#x",
    "!y", "{a,b}", "\\q", "-", "*", ".h",
];
const DIRECTORIES: [&str; 7] = ["a", "data", "foo", "Foo", "a b", "build", ".d"];
const PIECES: [&str; 29] = [
    "a",
    "b",
    "*",
    "**",
    "/",
    "/",
    "?",
    "[a-b]",
    "[!a]",
    "[z]",
    "\\[z\\]",
    "*.log",
    "data",
    "foo",
    "build",
    ".",
    "{a,b}",
    "\\",
    "\\#x",
    "é",
    "-",
    " ",
    "\\ ",
    "[[:upper:]]",
    "[[:nope:]]",
    "A",
    "x.o",
    "[",
    "#",
];

fn path() -> impl Strategy<Value = String> {
    let above = prop::collection::vec(prop::sample::select(&DIRECTORIES[..]), 0..3);
    (above, prop::sample::select(&NAMES[..]))
        .prop_map(|(above, name)| above.into_iter().chain([name]).collect::<Vec<_>>().join("/"))
}

fn pattern() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 1..5);
    let front = prop::sample::select(&["", "", "", "!", "!", "/", "**/", "#", "!/"][..]);
    let back = prop::sample::select(&["", "", "", "/", "/**", "/*", " ", "  ", "\r", "\t"][..]);
    let plain = prop::sample::select(
        &["*", "*/", "!*/", "/*", "**", "!b.log", "data/", "!data", "a/**/b", "foo/*", "!foo/b"][..],
    );
    prop_oneof![
        3 => (front, pieces, back).prop_map(|(front, pieces, back)| format!("{front}{}{back}", pieces.concat())),
        1 => plain.prop_map(str::to_owned),
    ]
}

fn file() -> impl Strategy<Value = String> {
    prop::collection::vec(pattern(), 0..5).prop_map(|lines| lines.join("\n"))
}

#[derive(Debug, Clone)]
struct Case {
    files: Vec<(String, bool)>,
    ignores: Vec<(String, String)>,
    info: String,
    own: String,
    fold: bool,
    version: u8,
}

fn case() -> impl Strategy<Value = Case> {
    let files = prop::collection::vec((path(), prop::bool::weighted(0.3)), 1..30);
    let dir =
        prop::collection::vec(prop::sample::select(&DIRECTORIES[..]), 0..3).prop_map(|dir| dir.join("/"));
    let ignores = prop::collection::vec((dir, file()), 0..5);
    (files, ignores, file(), file(), prop::bool::weighted(0.2), 2_u8..=4).prop_map(
        |(files, ignores, info, own, fold, version)| Case { files, ignores, info, own, fold, version },
    )
}

fn check(person: &Person, case: &Case) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    person.init(root, &[]);
    fs::create_dir_all(root.join(".git/info")).unwrap();
    fs::write(root.join(".git/info/exclude"), &case.info).unwrap();
    fs::create_dir_all(person.home.path().join(".config/git")).unwrap();
    fs::write(person.home.path().join(".config/git/ignore"), &case.own).unwrap();
    let index = case.version.to_string();
    let mut config = fs::read_to_string(root.join(".git/config")).unwrap();
    config.push_str(&format!("[core]\n\tignorecase = {}\n[index]\n\tversion = {index}\n", case.fold));
    fs::write(root.join(".git/config"), config).unwrap();
    let (mut tracked, mut folded) = (Vec::new(), BTreeSet::new());
    for (path, track) in &case.files {
        // Where case does not matter, no file system holds both.
        let dirs = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        let names: Vec<String> = dirs.chain([path.clone()]).collect();
        let alias = |name: &String| {
            folded.iter().any(|f: &String| f != name && f.to_lowercase() == name.to_lowercase())
        };
        if case.fold && names.iter().any(alias) {
            continue;
        }
        folded.extend(names);
        // A file where another case has a directory, or the reverse, is left out.
        let place = root.join(path);
        if fs::create_dir_all(place.parent().unwrap()).is_ok() && !place.is_dir() {
            fs::write(&place, path).unwrap();
            if *track {
                tracked.push(format!(":(literal){path}"));
            }
        }
    }
    for (dir, text) in &case.ignores {
        if (!case.fold || folded.contains(dir)) && fs::create_dir_all(root.join(dir)).is_ok() {
            fs::write(root.join(dir).join(".gitignore"), text).unwrap();
        }
    }
    if !tracked.is_empty() {
        let paths: Vec<&str> = tracked.iter().map(String::as_str).collect();
        person.git(root, &[&["add", "-f", "--"], paths.as_slice()].concat());
    }
    let chosen = person.chosen(root);
    prop_assert_eq!(&chosen.paths, &person.listed(root));
    prop_assert_eq!(&chosen.skipped, &vec![]);
    // From within it is the same, unless git ignores the directory itself.
    for inner in ["a", "foo", "data"].iter().map(|inner| root.join(inner)).filter(|inner| inner.is_dir()) {
        let asked = ["check-ignore", "-q", "--no-index", "."];
        let mut git = Command::new("git");
        git.args(asked).current_dir(&inner).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", person.home.path());
        if !git.status().unwrap().success() {
            prop_assert_eq!(person.chosen(&inner).paths, person.listed(&inner));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(
        std::env::var("SOURCE_TREES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
    ) })]
    #[test]
    fn trees_made_up_are_chosen_as_git_lists_them(case in case()) {
        check(&Person::new(), &case)?;
    }
}

#[test]
fn this_repository_is_chosen_as_git_lists_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    if !root.join(".git").exists() {
        return;
    }
    let person = Person::new();
    let listed = person.listed(root);
    assert!(listed.len() > 100);
    let never = |path: &&String| {
        !path.split('/').any(|part| [".venv", "__pycache__", "node_modules"].contains(&part))
    };
    assert_eq!(person.chosen(root).paths, listed.iter().filter(never).cloned().collect::<Vec<_>>());
}

#[test]
fn what_is_tracked_travels_though_it_is_ignored() {
    let (person, dir) = (Person::new(), tempfile::tempdir().unwrap());
    let root = dir.path();
    person.init(root, &[]);
    for path in
        ["data/kept.csv", "data/huge.bin", "node_modules/own.js", "outputs/golden.json", "x.py", "secret"]
    {
        put(root, path, path);
    }
    put(root, ".gitignore", "data/\n");
    put(root, ".outlastignore", "secret\n");
    person.git(root, &["add", "-f", "data/kept.csv", "node_modules/own.js", "outputs/golden.json", "secret"]);
    put(root, "outputs/new.json", "");
    let chosen = person.chosen(root);
    let expected = [
        ".gitignore",
        ".outlastignore",
        "data/kept.csv",
        "node_modules/own.js",
        "outputs/golden.json",
        "x.py",
    ];
    assert_eq!(chosen.paths, expected);
    let why: Vec<(&str, &str)> =
        chosen.left.iter().map(|left| (left.path.as_str(), left.why.as_str())).collect();
    assert!(why.contains(&("secret", "ignored by .outlastignore:1")), "{why:?}");
    assert!(why.contains(&("data/huge.bin", "ignored with the directory it is in")), "{why:?}");
    fs::remove_file(root.join("data/kept.csv")).unwrap();
    assert!(!person.chosen(root).paths.contains(&"data/kept.csv".to_owned()), "it is gone");
    person.git(root, &["rm", "-q", "--cached", "data/kept.csv"]);
    let left = person.chosen(root).left;
    assert!(left.iter().any(|left| left.path == "data"), "{left:?}");
    // A tracked directory that became a link leads nowhere else.
    put(root, "pkg/m.py", "");
    person.git(root, &["add", "pkg/m.py"]);
    fs::rename(root.join("pkg"), root.join("other")).unwrap();
    symlink("other", root.join("pkg")).unwrap();
    let paths = person.chosen(root).paths;
    assert!(paths.contains(&"pkg".to_owned()) && paths.contains(&"other/m.py".to_owned()));
    assert!(!paths.contains(&"pkg/m.py".to_owned()));
    fs::write(root.join(".git/index"), "DIRC damaged").unwrap();
    assert!(person.chosen(root).skipped[0].0.contains(".git/index"));
}

#[test]
fn every_shape_of_repository_is_understood() {
    let (person, dir) = (Person::new(), tempfile::tempdir().unwrap());
    let root = &dir.path().join("main");
    person.init(root, &["-b", "main"]);
    put(root, ".gitignore", "*.bin\n");
    put(root, "a.bin", "");
    put(root, "b.py", "");
    person.git(root, &["add", "-f", "a.bin", "b.py", ".gitignore"]);
    let commit = ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"];
    person.git(root, &commit);
    // A linked work tree, a split index, another hash.
    person.git(root, &["worktree", "add", "-q", "../linked", "-b", "other"]);
    let linked = dir.path().join("linked");
    put(&linked, "no.bin", "");
    assert_eq!(person.chosen(&linked).paths, [".gitignore", "a.bin", "b.py"]);
    assert_eq!(person.chosen(&linked).paths, person.listed(&linked));
    person.git(root, &["update-index", "--split-index"]);
    put(root, "c.bin", "");
    person.git(root, &["add", "-f", "c.bin"]);
    assert_eq!(person.chosen(root).paths, person.listed(root));
    let longer = dir.path().join("longer");
    person.init(&longer, &["--object-format=sha256"]);
    put(&longer, ".gitignore", "x\n");
    put(&longer, "x", "");
    person.git(&longer, &["add", "-f", "x", ".gitignore"]);
    assert_eq!(person.chosen(&longer).paths, [".gitignore", "x"]);
    // Repositories within have rules of their own, and travel with their files.
    put(root, "lib/x.bin", "");
    put(root, "lib/.gitignore", "y\n");
    put(root, "lib/y", "");
    put(root, "lib/deep/y", "");
    person.init(&root.join("lib"), &[]);
    let paths = person.chosen(root).paths;
    assert_eq!(paths, [".gitignore", "a.bin", "b.py", "c.bin", "lib/.gitignore", "lib/x.bin"]);
    put(root, ".gitignore", "*.bin\nlib\n");
    assert_eq!(person.chosen(root).paths, [".gitignore", "a.bin", "b.py", "c.bin"]);
    // What is named is sent, though the repository around it ignores it.
    assert_eq!(person.chosen(&root.join("lib/deep")).paths, Vec::<String>::new());
    assert_eq!(person.chosen(&root.join("lib")).paths, [".gitignore", "x.bin"]);
    put(root, "scratch/t.py", "");
    put(root, ".gitignore", "scratch/\n");
    assert_eq!(person.chosen(&root.join("scratch")).paths, ["t.py"]);
}

#[test]
fn a_persons_own_ignore_file_counts_wherever_it_is_said_to_be() {
    let (person, dir) = (Person::new(), tempfile::tempdir().unwrap());
    let root = dir.path();
    person.init(root, &[]);
    for name in ["a.swp", "b.tmp", "c.py"] {
        put(root, name, "");
    }
    put(person.home.path(), ".config/git/ignore", "*.swp\n");
    assert_eq!(person.chosen(root).paths, ["b.tmp", "c.py"]);
    put(person.home.path(), "mine", "*.tmp\n");
    put(person.home.path(), ".gitconfig", "[core]\n\texcludesFile = ~/mine\n");
    assert_eq!(person.chosen(root).paths, ["a.swp", "c.py"]);
    assert_eq!(person.chosen(root).paths, person.listed(root));
    person.git(root, &["config", "core.excludesFile", "/nowhere"]);
    assert_eq!(person.chosen(root).paths, person.listed(root));
    assert_eq!(person.chosen(root).paths.len(), 3);
}

#[test]
fn what_a_configuration_includes_counts() {
    let (person, dir) = (Person::new(), tempfile::tempdir().unwrap());
    let root = &dir.path().join("Mine/tree");
    person.init(root, &["-b", "topic/one"]);
    for name in ["a", "b", "c"] {
        put(root, name, "");
    }
    let home = person.home.path();
    for (name, ignored) in [("none", "x"), ("all", "a\nb"), ("some", "b")] {
        put(home, &format!("ignore/{name}"), &format!("{ignored}\n"));
        let text = format!("[core]\n\texcludesFile = {}/ignore/{name}\n", home.display());
        put(home, &format!("parts/{name}"), &text);
    }
    let above = dir.path().canonicalize().unwrap();
    let above = above.display();
    let cases = [
        ("[include] path = parts/all\n".to_owned(), 1),
        ("[include]\n\tpath = ~/parts/all\n[core]\n\texcludesFile = ~/ignore/none\n".to_owned(), 3),
        ("[core]\n\texcludesFile = ~/ignore/none\n[include]\n\tpath = \"parts/some\"\n".to_owned(), 2),
        ("[include]\n\tpath = parts/missing\n".to_owned(), 3),
        ("[include \"gitdir:**\"]\n\tpath = parts/all\n".to_owned(), 3),
        (format!("[includeIf \"gitdir:{above}/Mine/\"]\n\tpath = parts/all\n"), 1),
        (format!("[includeIf \"gitdir:{above}/Mine\"]\n\tpath = parts/all\n"), 3),
        (format!("[includeIf \"gitdir:{above}/mine/\"]\n\tpath = parts/all\n"), 3),
        (format!("[INCLUDEIF \"gitdir/i:{above}/mine/\"]\n\tPath = parts/all\n"), 1),
        ("[includeIf \"gitdir:Mine/\"]\n\tpath = parts/some\n".to_owned(), 2),
        ("[includeIf \"gitdir:tree/.git\"]\n\tpath = parts/some\n".to_owned(), 2),
        ("[includeIf \"gitdir:~/\"]\n\tpath = parts/all\n".to_owned(), 3),
        ("[includeIf \"gitdir:./\"]\n\tpath = parts/all\n".to_owned(), 3),
        ("[includeIf \"onbranch:topic/\"]\n\tpath = parts/all\n".to_owned(), 1),
        ("[includeIf \"onbranch:topic\"]\n\tpath = parts/all\n".to_owned(), 3),
        ("[includeIf \"onbranch:*\"]\n\tpath = parts/all\n".to_owned(), 3),
        ("[includeIf \"onbranch:t*/?ne\"]\n\tpath = parts/some\n".to_owned(), 2),
    ];
    for (text, left) in &cases {
        put(home, ".gitconfig", text);
        assert_eq!(person.chosen(root).paths, person.listed(root), "{text}");
        assert_eq!(person.chosen(root).paths.len(), *left, "{text}");
    }
    // A repository's own, from within it and from below the home directory.
    fs::remove_file(home.join(".gitconfig")).unwrap();
    put(root, ".git/x/inc", &format!("[core]\n\texcludesFile = {}/ignore/all\n", home.display()));
    let config = fs::read_to_string(root.join(".git/config")).unwrap();
    for (more, left) in [
        ("[include]\n\tpath = x/inc\n", 1),
        ("[includeIf \"gitdir:./\"]\n\tpath = x/inc\n", 3),
        ("[includeIf \"gitdir:../\"]\n\tpath = x/inc\n", 3),
    ] {
        put(root, ".git/config", &format!("{config}{more}"));
        assert_eq!(person.chosen(root).paths, person.listed(root), "{more}");
        assert_eq!(person.chosen(root).paths.len(), left, "{more}");
    }
    let mine = &home.join("Mine");
    person.init(mine, &["-b", "main"]);
    put(mine, "a", "");
    put(home, ".gitconfig", "[includeIf \"gitdir:~/Mine/\"]\n\tpath = parts/all\n");
    assert_eq!((person.chosen(mine).paths.len(), person.listed(mine).len()), (0, 0));
    put(home, ".gitconfig", "[includeIf \"gitdir:./Mine/\"]\n\tpath = parts/all\n");
    assert_eq!((person.chosen(mine).paths.len(), person.listed(mine).len()), (0, 0));
    // One file instead of those at home.
    put(root, ".git/config", &config);
    put(home, ".gitconfig", "[include]\n\tpath = parts/all\n");
    let global = put(home, "other", "[include]\n\tpath = parts/some\n");
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"])
        .current_dir(root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", &global)
        .env("HOME", home)
        .output()
        .unwrap();
    let personal = Personal { global: Some(global), ..person.personal() };
    let chosen = select_source(root, &[], &[], &personal).unwrap().paths;
    assert_eq!(chosen.join("\n") + "\n", String::from_utf8(listed.stdout).unwrap());
    assert_eq!(chosen, ["a", "c"]);
}
