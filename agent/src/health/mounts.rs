//! How full the file systems are that matter here. A file system that does not
//! answer (a network share whose server is gone) holds one thread of its own and
//! never the sampler: its figures are the ones from before until it answers.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, statvfs};
use proto::v1;

/// How long a sample waits for the file systems' answers.
const PATIENCE: Duration = Duration::from_secs(1);
/// Places looked at; directories beyond these share their mounts with them.
const PLACES_MAX: usize = 256;
const STACK: usize = 128 * 1024;
/// What places hold that a machine must be able to write.
const WRITTEN: [&str; 2] = ["state", "checkpoints"];

/// A directory that matters, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) holds: String,
    pub(super) path: PathBuf,
}

/// One file system.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Space {
    pub(super) mount: v1::Mount,
    /// Nothing can fill it.
    pub(super) read_only: bool,
}

/// The last answer of the file systems.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) spaces: Vec<Space>,
    /// Where work is kept, and whether it stands in a mount that takes nothing.
    pub(super) kept: Vec<(String, bool)>,
    pub(super) problems: Vec<String>,
}

/// Asks the file systems on a thread of its own, one question at a time.
#[derive(Debug)]
pub(super) struct Prober {
    thread: Option<(SyncSender<Vec<Place>>, Receiver<Answer>)>,
    is_asked: bool,
    last: Answer,
    patience: Duration,
}

impl Default for Prober {
    fn default() -> Self {
        // A test that is not about silence must not take a slow machine for it.
        let patience = if cfg!(test) { 180 * PATIENCE } else { PATIENCE };
        Self { thread: None, is_asked: false, last: Answer::default(), patience }
    }
}

impl Prober {
    /// The figures now, or the last ones with a word on why they are old.
    pub(super) fn spaces(&mut self, places: &[Place]) -> Answer {
        match self.ask(places) {
            Ok(answer) => {
                self.last = answer;
                self.last.clone()
            }
            Err(why) => Answer { problems: vec![why], ..self.last.clone() },
        }
    }

    fn ask(&mut self, places: &[Place]) -> Result<Answer, String> {
        if self.thread.is_none() {
            self.thread = Some(start().map_err(|e| format!("file systems: no thread to look at them: {e}"))?);
            self.is_asked = false;
        }
        let Some((questions, answers)) = &self.thread else { return Err(String::new()) };
        if !self.is_asked {
            // The one place of the queue is free: the last question is answered.
            self.is_asked = questions.try_send(places.iter().take(PLACES_MAX).cloned().collect()).is_ok();
        }
        match answers.recv_timeout(self.patience) {
            Ok(answer) => {
                self.is_asked = false;
                Ok(answer)
            }
            Err(RecvTimeoutError::Timeout) => {
                Err("file systems: one of them does not answer; its figures are old".to_owned())
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.thread = None;
                Err("file systems: the thread that looks at them has ended".to_owned())
            }
        }
    }
}

fn start() -> std::io::Result<(SyncSender<Vec<Place>>, Receiver<Answer>)> {
    let (questions, asked) = sync_channel::<Vec<Place>>(1);
    let (answer, answers) = sync_channel(1);
    std::thread::Builder::new().name("mounts".to_owned()).stack_size(STACK).spawn(move || {
        let mut known = HashMap::new();
        while let Ok(places) = asked.recv() {
            if answer.send(look(&places, &mut known)).is_err() {
                return;
            }
        }
    })?;
    Ok((questions, answers))
}

/// Where a path's file system is mounted, and which device it was then.
type Known = HashMap<PathBuf, (u64, PathBuf)>;

fn look(places: &[Place], known: &mut Known) -> Answer {
    let mut answer = Answer::default();
    let mut at: HashMap<u64, usize> = HashMap::new();
    if known.len() > 2 * PLACES_MAX {
        known.clear();
    }
    for place in places {
        // A directory that is not made yet will be on its parent's file system.
        let Some((path, device)) =
            place.path.ancestors().find_map(|p| Some((p, fs::metadata(p).ok()?.dev())))
        else {
            answer.problems.push(format!("{}: not found", place.path.display()));
            continue;
        };
        // Of a device that is mounted twice only one mount may be read-only.
        if WRITTEN.contains(&place.holds.as_str())
            && let Ok(found) = statvfs(path)
        {
            let refuses = found.flags().contains(FsFlags::ST_RDONLY);
            answer.kept.push((place.path.display().to_string(), refuses));
        }
        let index = match at.get(&device) {
            Some(index) => *index,
            None => match measure(path) {
                Ok(mut space) => {
                    space.mount.path = mount_point(path, device, known);
                    answer.spaces.push(space);
                    at.insert(device, answer.spaces.len() - 1);
                    answer.spaces.len() - 1
                }
                Err(e) => {
                    answer.problems.push(format!("{}: {e}", path.display()));
                    continue;
                }
            },
        };
        if let Some(space) = answer.spaces.get_mut(index)
            && !space.mount.holds.contains(&place.holds)
        {
            space.mount.holds.push(place.holds.clone());
        }
    }
    answer
}

#[allow(clippy::useless_conversion, reason = "the field types differ between targets")]
fn measure(path: &Path) -> nix::Result<Space> {
    let v = statvfs(path)?;
    let unit = u64::from(v.fragment_size());
    Ok(Space {
        mount: v1::Mount {
            path: String::new(),
            // As `df` counts it: what is reserved for root is nobody's to use.
            total_bytes: u64::from(v.blocks())
                .saturating_sub(u64::from(v.blocks_free()).saturating_sub(u64::from(v.blocks_available())))
                .saturating_mul(unit),
            free_bytes: u64::from(v.blocks_available()).saturating_mul(unit),
            inodes: u64::from(v.files()),
            inodes_free: u64::from(v.files_available()).min(u64::from(v.files())),
            holds: Vec::new(),
        },
        read_only: v.flags().contains(FsFlags::ST_RDONLY),
    })
}

/// The highest directory above `path` that is on the same device.
fn mount_point(path: &Path, device: u64, known: &mut Known) -> String {
    if let Some((then, mount)) = known.get(path)
        && *then == device
    {
        return mount.display().to_string();
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mount = real
        .ancestors()
        .take_while(|p| fs::metadata(p).is_ok_and(|m| m.dev() == device))
        .last()
        .unwrap_or(&real)
        .to_path_buf();
    let shown = mount.display().to_string();
    known.insert(path.to_path_buf(), (device, mount));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(holds: &str, path: impl Into<PathBuf>) -> Place {
        Place { holds: holds.to_owned(), path: path.into() }
    }

    #[test]
    fn each_file_system_is_told_once_with_all_that_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let places = [
            place("state", dir.path()),
            place("cache", dir.path().join("not/made/yet")),
            place("shm", "/dev/shm"),
            place("state", dir.path()),
        ];
        let answer = Prober::default().spaces(&places);
        assert_eq!(answer.problems, Vec::<String>::new());
        let of = |what: &str| answer.spaces.iter().find(|s| s.mount.holds.iter().any(|h| h == what)).unwrap();
        assert_eq!(of("state").mount.holds, ["state", "cache"]);
        let root = &of("state").mount;
        assert!(dir.path().canonicalize().unwrap().starts_with(&root.path), "{root:?}");
        assert!(
            root.total_bytes > 0 && root.free_bytes <= root.total_bytes && root.inodes_free <= root.inodes
        );
        if fs::metadata("/dev/shm").unwrap().dev() != fs::metadata("/").unwrap().dev() {
            assert_eq!(of("shm").mount.path, "/dev/shm");
        }
    }

    #[test]
    fn a_place_that_cannot_be_looked_at_is_told_and_the_others_stay() {
        let answer = Prober::default().spaces(&[place("a", "relative/none"), place("b", "/")]);
        assert_eq!(answer.spaces.len(), 1);
        assert!(answer.problems[0].starts_with("relative/none"), "{:?}", answer.problems);
    }

    #[test]
    fn a_file_system_that_does_not_answer_costs_old_figures_and_no_wait() {
        let (questions, asked) = sync_channel::<Vec<Place>>(1);
        let (keep, answers) = sync_channel::<Answer>(1);
        let old = Answer { spaces: look(&[place("b", "/")], &mut Known::new()).spaces, ..Answer::default() };
        let thread = Some((questions, answers));
        let mut prober = Prober { thread, is_asked: false, last: old.clone(), patience: PATIENCE };
        for _ in 0..3 {
            let answer = prober.spaces(&[place("b", "/")]);
            assert_eq!(answer.spaces, old.spaces);
            assert!(answer.problems[0].contains("does not answer"));
        }
        assert!(asked.recv().is_ok());
        assert!(asked.try_recv().is_err(), "one question at a time");
        drop(keep);
        assert!(prober.spaces(&[]).problems[0].contains("has ended"));
        prober.patience = Prober::default().patience;
        assert!(prober.spaces(&[place("b", "/")]).problems.is_empty(), "a new thread answers");
    }
}
