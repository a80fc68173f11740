//! The keys of sealed checkpoints: the installation's secret, from which each
//! project's comes, the controller's own key, and to whom manifests are sealed.
//! They are owner-only files of the data directory, made once. No key ever
//! stands in a log, an error, a row or the journal; a machine is given its
//! project's secret and never a private key.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use artifacts::seal::{Keyring, PrivateKey, ProjectSecret, PublicKey};
use lifecycle::RunSpec;
use lifecycle::spec::Encrypt;
use proto::v1;
use zeroize::Zeroizing;

use crate::core::{Core, CoreError};
use crate::home::{HomeError, read_bytes, read_text, write_file};
use crate::provider::Owner;

mod recipients;

pub use recipients::{Flaw, Recipients};

/// The installation's secret: 32 bytes.
const SECRET: &str = "seal.secret";
/// The controller's own private key.
const OWN: &str = "seal.key";
/// The recovery key, until it is taken elsewhere; put back, it is used, too.
const RECOVERY: &str = "recovery.key";
/// Public keys, one a line.
const RECIPIENTS: &str = "recipients";

/// The keys of one installation; by default there are none.
#[derive(Default)]
pub struct Keys {
    dir: PathBuf,
    secret: Option<Zeroizing<[u8; 32]>>,
    ring: Keyring,
    /// The controller's own public key.
    own: Option<PublicKey>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.dir.display())
    }
}

fn damaged(path: PathBuf, problem: &dyn std::fmt::Display) -> HomeError {
    HomeError::Damaged { path, problem: problem.to_string() }
}

/// A private key that is kept in a file, if it is there.
fn kept(path: &Path) -> Result<Option<PrivateKey>, HomeError> {
    let Some(text) = read_text(path)?.map(Zeroizing::new) else { return Ok(None) };
    PrivateKey::from_text(&text).map(Some).map_err(|error| damaged(path.to_owned(), &error))
}

/// The same, made now if it is not there.
fn kept_or_made(path: &Path) -> Result<PrivateKey, HomeError> {
    if let Some(key) = kept(path)? {
        return Ok(key);
    }
    let key = PrivateKey::generate()?;
    write_file(path, key.to_text().as_bytes(), 0o600)?;
    Ok(key)
}

fn write_recipients(dir: &Path, recipients: &[PublicKey]) -> Result<(), HomeError> {
    let mut text = "# Public keys that every sealed checkpoint can be opened with.\n".to_owned();
    for key in recipients {
        text.push_str(&format!("{key}\n"));
    }
    write_file(&dir.join(RECIPIENTS), text.as_bytes(), 0o600)
}

impl Keys {
    /// Reads the keys below `dir`, and makes them where there are none.
    ///
    /// # Errors
    /// Where they cannot be read or written.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        let secret_path = dir.join(SECRET);
        let own = kept_or_made(&dir.join(OWN))?;
        let (public, known) = (own.public()?, Recipients::read(dir)?);
        if known.is_empty() {
            let recovery = kept_or_made(&dir.join(RECOVERY))?;
            write_recipients(dir, &[public, recovery.public()?])?;
        } else if !known.good.contains(&public) {
            tracing::warn!(
                "the controller's key of sealed checkpoints is not among the recipients and becomes one; if it \
                 was lost and is new, older checkpoints open with the recovery key alone: put that into {}",
                dir.join(RECOVERY).display()
            );
            recipients::prepend(dir, &public)?;
        }
        // Only now: what is sealed from here on has its recipients.
        let secret = match read_bytes(&secret_path)?.map(Zeroizing::new) {
            Some(bytes) => {
                bytes.as_slice().try_into().map_err(|_| damaged(secret_path, &"32 bytes are expected"))?
            }
            None => {
                let secret = proto::pki::random::<32>()?;
                write_file(&secret_path, &secret, 0o600)?;
                secret
            }
        };
        let mut ring = Keyring::default();
        ring.add_private(own)?;
        if let Some(recovery) = kept(&dir.join(RECOVERY))? {
            ring.add_private(recovery)?;
        }
        Ok(Self { dir: dir.to_owned(), secret: Some(Zeroizing::new(secret)), ring, own: Some(public) })
    }

    /// What opens manifests here.
    #[must_use]
    pub const fn ring(&self) -> &Keyring {
        &self.ring
    }

    /// What secrets of runs are sealed with in the database.
    #[must_use]
    pub fn for_secrets(&self) -> Option<Zeroizing<[u8; 32]>> {
        let secret = self.secret.as_ref()?;
        Some(Zeroizing::new(blake3::derive_key("outlast secrets of runs, version 1", &secret[..])))
    }

    /// What is wrong with the recipients, and the cure, for `outlast status`.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.secret.as_ref()?;
        match Recipients::read(&self.dir) {
            Ok(known) => {
                let (what, cure) = known.problem(self.own.as_ref(), &self.dir.join(RECIPIENTS))?;
                Some(format!("{what}: {cure}"))
            }
            Err(error) => Some(format!("no sealed checkpoint is published: {error}")),
        }
    }

    /// What a machine needs to seal the trees of a project.
    fn material(&self, project: &str) -> Result<v1::Sealing, String> {
        let secret = self.secret.as_ref().ok_or("this controller has no keys")?;
        let secret = ProjectSecret::of_project(secret, project);
        // Read each time: a person may add one while the controller runs.
        let recipients = Recipients::read(&self.dir).map_err(|error| error.to_string())?;
        if !recipients.suffice(self.own.as_ref()) {
            let path = self.dir.join(RECIPIENTS);
            let problem = recipients.problem(self.own.as_ref(), &path).map(|(what, _)| what);
            return Err(problem.unwrap_or_else(|| format!("{} names no recipient", path.display())));
        }
        Ok(v1::Sealing {
            secret: secret.expose().to_vec(),
            recipients: recipients.good.iter().map(|key| key.as_bytes().to_vec()).collect(),
        })
    }
}

/// Whether the trees of a run are sealed: where it says so, and on machines of
/// strangers unless it says otherwise.
#[must_use]
pub fn is_sealed(encrypt: Encrypt, owner: Owner) -> bool {
    match encrypt {
        Encrypt::Always => true,
        Encrypt::Never => false,
        Encrypt::Auto => owner == Owner::Stranger,
    }
}

/// Whether the trees of this run are sealed.
#[must_use]
pub fn is_sealed_run(core: &Core, spec: &RunSpec) -> bool {
    // A provider that is not there any more has no machines.
    let owner = core.providers.get(&spec.provider).map_or(Owner::Me, |provider| provider.owner());
    is_sealed(spec.checkpoints.encrypt, owner)
}

/// What the machine of a run seals with; `None`: it does not.
///
/// # Errors
/// Where it must and there are no keys: it is not told to store anything then.
pub fn sealing(core: &Core, spec: &RunSpec) -> Result<Option<v1::Sealing>, CoreError> {
    if !is_sealed_run(core, spec) {
        return Ok(None);
    }
    core.alert("keys", core.keys.trouble());
    let material = core.keys.material(&spec.project);
    material.map(Some).map_err(|why| CoreError::Impossible(format!("checkpoints cannot be sealed: {why}")))
}

/// What is known of the keys of an installation, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// To whom manifests are sealed, and lines of the file that are nobody.
    pub recipients: Recipients,
    /// The controller's own public key, if it is there.
    pub own: Option<PublicKey>,
    /// Where the file is.
    pub path: PathBuf,
    /// The recovery key still lies beside the controller's own.
    pub recovery_is_here: bool,
}

impl Standing {
    /// What is wrong and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Option<(String, String)> {
        if let Some(problem) = self.recipients.problem(self.own.as_ref(), &self.path) {
            return Some(problem);
        }
        if self.recipients.good.len() == 1 {
            let what = "sealed checkpoints open with one key alone: lost, they are lost";
            return Some((what.into(), "outlast keys add-recipient PUBLIC-KEY".into()));
        }
        self.recovery_is_here.then(|| {
            let what =
                "the recovery key of sealed checkpoints lies beside the controller's: both are lost at once";
            (what.into(), "outlast keys recovery --out FILE, and keep that file elsewhere".into())
        })
    }
}

/// What is known of the keys below a data directory; `None`: there are none yet.
///
/// # Errors
/// Where they cannot be read.
pub fn standing(home: &Path) -> Result<Option<Standing>, HomeError> {
    let dir = home.join("keys");
    let recipients = Recipients::read(&dir)?;
    if recipients.is_empty() {
        return Ok(None);
    }
    let own = kept(&dir.join(OWN))?.map(|own| own.public()).transpose()?;
    let recovery_is_here = dir.join(RECOVERY).exists();
    Ok(Some(Standing { recipients, own, path: dir.join(RECIPIENTS), recovery_is_here }))
}

/// Writes the recovery key to a file that must not exist, durably and for its
/// owner alone, and only then removes it here. Tells its public half.
///
/// # Errors
/// Where it is not here any more, or the file cannot be written.
pub fn export_recovery(home: &Path, to: &Path) -> Result<PublicKey, HomeError> {
    let path = home.join("keys").join(RECOVERY);
    let Some(key) = kept(&path)? else {
        let problem = "the recovery key is not here: it was exported before, or no controller has run yet";
        return Err(damaged(path, &problem));
    };
    let public = key.public()?;
    let io = |source| HomeError::Io { path: to.to_owned(), source };
    let mut text = Zeroizing::new(format!(
        "# Recovery key {} of an Outlast installation: opens every checkpoint sealed to it.\n",
        public.id()
    ));
    text.push_str(&key.to_text());
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(to).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(above).and_then(|dir| dir.sync_all()).map_err(io)?;
    // Read back: afterwards there is no other copy.
    if !kept(to)?.is_some_and(|back| back == key) {
        return Err(damaged(to.to_owned(), &"it does not hold what was written: the key stays where it was"));
    }
    fs::remove_file(&path).map_err(|source| HomeError::Io { path, source })?;
    Ok(public)
}

/// Adds a recipient to those that manifests are sealed to from now on.
///
/// # Errors
/// Where nobody can be sealed to with it, there are too many, or the file cannot be
/// written.
pub fn add_recipient(home: &Path, key: PublicKey) -> Result<(), HomeError> {
    recipients::append(&home.join("keys"), &key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(dir: &Path) -> Vec<PublicKey> {
        Recipients::read(dir).unwrap().good
    }

    fn made() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("keys");
        fs::create_dir(&dir).unwrap();
        (home, dir)
    }

    #[test]
    fn keys_are_made_once_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (home, dir) = made();
        assert_eq!(standing(home.path()).unwrap(), None);
        let first = Keys::open(&dir).unwrap().material("p").unwrap();
        assert_eq!((first.secret.len(), first.recipients.len()), (32, 2));
        for entry in fs::read_dir(&dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let keys = Keys::open(&dir).unwrap();
        assert_eq!(keys.material("p").unwrap(), first, "a restart changes nothing");
        assert_ne!(keys.material("q").unwrap().secret, first.secret);
        assert!(Keys::default().material("p").is_err());
    }

    #[test]
    fn the_recovery_key_leaves_only_once_it_is_safe_elsewhere() {
        let (home, dir) = made();
        Keys::open(&dir).unwrap();
        let problem = |home: &Path| standing(home).unwrap().unwrap().problem();
        assert!(problem(home.path()).unwrap().1.contains("keys recovery"));
        let taken = home.path().join("taken");
        fs::write(&taken, "x").unwrap();
        assert!(export_recovery(home.path(), &taken).is_err());
        assert!(dir.join(RECOVERY).exists(), "it stays where it cannot be written");
        let out = home.path().join("recovery");
        let public = export_recovery(home.path(), &out).unwrap();
        assert!(!dir.join(RECOVERY).exists());
        assert_eq!(kept(&out).unwrap().unwrap().public().unwrap(), public);
        assert_eq!(problem(home.path()), None);
        assert!(export_recovery(home.path(), &home.path().join("again")).is_err());
        assert!(good(&dir).contains(&public), "it is sealed to, as before");
        assert_eq!(Keys::open(&dir).unwrap().material("p").unwrap().recipients.len(), 2);
        assert!(!dir.join(RECOVERY).exists(), "and is not made anew");
    }

    #[test]
    fn a_lost_key_of_the_controller_is_replaced_and_the_others_stay() {
        let (home, dir) = made();
        Keys::open(&dir).unwrap();
        let before = good(&dir);
        fs::remove_file(dir.join(OWN)).unwrap();
        Keys::open(&dir).unwrap();
        let after = good(&dir);
        assert_eq!((after.len(), &after[1..]), (3, &before[..]));
        add_recipient(home.path(), PublicKey::from_bytes([9; 32])).unwrap();
        add_recipient(home.path(), PublicKey::from_bytes([9; 32])).unwrap();
        assert_eq!(good(&dir).len(), 4);
        fs::write(dir.join(RECIPIENTS), format!("{}\n", before[0])).unwrap();
        let standing = standing(home.path()).unwrap().unwrap();
        assert!(standing.problem().unwrap().0.contains("one key alone"));
    }

    #[test]
    fn a_mistake_in_the_recipients_is_told_with_its_line_and_blocks_no_more_than_it_must() {
        let (home, dir) = made();
        let keys = Keys::open(&dir).unwrap();
        assert_eq!(keys.trouble(), None);
        let path = dir.join(RECIPIENTS);
        let before = fs::read_to_string(&path).unwrap();
        let low = PublicKey::from_bytes([0; 32]);
        assert!(add_recipient(home.path(), low).unwrap_err().to_string().contains("low order"));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        fs::write(&path, format!("{before}{low}\n")).unwrap();
        assert_eq!(keys.material("p").unwrap().recipients.len(), 2, "the others are sealed to");
        let told = keys.trouble().unwrap();
        assert!(told.contains("line 4: ") && told.contains("take it out"), "{told}");
        let (what, cure) = standing(home.path()).unwrap().unwrap().problem().unwrap();
        assert!(what.contains("line 4: ") && cure.contains("line 4 of"), "{what} {cure}");
        let third = PrivateKey::generate().unwrap().public().unwrap();
        assert!(add_recipient(home.path(), third).unwrap_err().to_string().contains("line 4"));
        // Too many: the first are sealed to; a new own key is among them.
        let many: String =
            (0..17).map(|_| format!("{}\n", PrivateKey::generate().unwrap().public().unwrap())).collect();
        fs::write(&path, format!("# mine\n{many}")).unwrap();
        assert!(keys.material("p").is_err(), "the controller could not open it");
        let keys = Keys::open(&dir).unwrap();
        assert_eq!(keys.material("p").unwrap().recipients.len(), 16);
        assert!(keys.trouble().unwrap().contains("(and 1 more): one recipient more"));
        // Nobody at all: nothing is sealed, and the controller starts all the same.
        fs::write(&path, "x\n").unwrap();
        let keys = Keys::open(&dir).unwrap();
        assert!(keys.material("p").unwrap_err().contains("line 2"));
        assert!(keys.trouble().unwrap().contains("no sealed checkpoint is published"));
        assert!(fs::read_to_string(&path).unwrap().ends_with("x\n"), "no line is taken out");
    }

    #[test]
    fn machines_of_strangers_seal_unless_told_otherwise() {
        for (encrypt, owner, sealed) in [
            (Encrypt::Auto, Owner::Me, false),
            (Encrypt::Auto, Owner::Cloud, false),
            (Encrypt::Auto, Owner::Stranger, true),
            (Encrypt::Always, Owner::Me, true),
            (Encrypt::Never, Owner::Stranger, false),
        ] {
            assert_eq!(is_sealed(encrypt, owner), sealed, "{encrypt:?} {owner:?}");
        }
    }
}
