//! The data directory of one installation: who holds it, where its keys,
//! database, objects and logs are. Keys are owner-only files and are read by
//! this process alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lifecycle::HubId;
use proto::identity::Identity;
use proto::pki::{Authority, Credentials, PkiError};
use serde::{Deserialize, Serialize};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another controller runs for it.
    #[error("another controller holds {0}")]
    Held(PathBuf),
    /// Its state was moved to another computer.
    #[error("the state of {home} was moved to {to}, and its controller runs there")]
    Moved {
        /// The data directory.
        home: PathBuf,
        /// `[user@]host`.
        to: String,
    },
    /// A copy that has not been released.
    #[error(
        "{0} is a copy of an installation that has not been released: finish `outlast controller deploy` where it came from"
    )]
    Arriving(PathBuf),
    /// Something else lies where a directory of the controller belongs.
    #[error(
        "{0} is no directory, and the controller keeps files of its own in one called so: move what is there"
    )]
    Taken(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file has been damaged.
    #[error("{path} cannot be read: {problem}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Keys of sealed checkpoints.
    #[error(transparent)]
    Seal(#[from] artifacts::seal::SealError),
}

/// How tools find the running controller: `controller.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendezvous {
    /// The controller's process.
    pub pid: u32,
    /// This installation.
    pub hub: HubId,
    /// `host:port` for operators.
    pub operators: String,
    /// `host:port` for agents.
    pub agents: String,
    /// `host:port` for joining.
    pub join: String,
    /// The controller's build.
    pub build: String,
}

/// What never changes of an installation: `hub.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HubFile {
    hub: HubId,
    restore_count: u32,
}

/// A data directory, held exclusively while this lives.
pub struct Home {
    root: PathBuf,
    _lock: Hold,
    /// This installation.
    pub hub: HubId,
    /// Times restored from a backup.
    pub restore_count: u32,
    /// Its certificate authority.
    pub authority: Authority,
    /// Key of the labels' MAC.
    pub label_key: [u8; 32],
}

/// A data directory held without being served: while this lives no controller
/// starts.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "the lock is held while the file is open")] File);

impl Hold {
    /// Takes it.
    ///
    /// # Errors
    /// Where a controller, or anybody else, holds it.
    pub fn take(root: &Path) -> Result<Self, HomeError> {
        let path = root.join("controller.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(HomeError::Held(root.to_owned())),
            Err(TryLockError::Error(source)) => Err(HomeError::Io { path, source }),
        }
    }
}

/// Operators' certificates are made anew at a start of the controller once a
/// third of their life is left.
const OPERATOR_LIFE: Duration = Duration::from_hours(24 * 365);

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> HomeError + '_ {
    move |source| HomeError::Io { path: path.to_owned(), source }
}

/// Writes a file whole or not at all: temporary, fsync, rename, fsync of the
/// directory.
///
/// # Errors
/// Where the disk refuses.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    let write = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_error(path))
}

impl Home {
    /// Opens or makes a data directory.
    ///
    /// # Errors
    /// Where another controller holds it, or it cannot be used.
    pub fn open(root: &Path, now: SystemTime) -> Result<Self, HomeError> {
        for dir in [root.to_owned(), root.join("keys")] {
            match fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
                Err(_) if fs::symlink_metadata(&dir).is_ok_and(|meta| !meta.is_dir()) => {
                    return Err(HomeError::Taken(dir));
                }
                made => made.map_err(io_error(&dir))?,
            }
        }
        // Looked at first, so that who may not start holds up nobody; what counts
        // is the look under the lock.
        crate::moved::may_start(root)?;
        let lock = Hold::take(root)?;
        crate::moved::may_start(root)?;
        let keys = root.join("keys");
        let hub_file: HubFile = match read_text(&root.join("hub.json"))? {
            Some(text) => parse(&root.join("hub.json"), &text)?,
            None => {
                let fresh = HubFile { hub: HubId::from_bytes(proto::pki::random()?), restore_count: 0 };
                let text = serde_json::to_vec(&fresh).unwrap_or_default();
                write_file(&root.join("hub.json"), &text, 0o600)?;
                fresh
            }
        };
        let authority = match (read_text(&keys.join("root.pem"))?, read_text(&keys.join("root.key"))?) {
            (Some(cert), Some(key)) => Authority::load(hub_file.hub, &cert, &key)?,
            (None, _) => {
                let made = Authority::create(hub_file.hub, now)?;
                write_file(&keys.join("root.key"), made.key_pem().as_bytes(), 0o600)?;
                write_file(&keys.join("root.pem"), made.root_pem().as_bytes(), 0o600)?;
                made
            }
            (Some(_), None) => {
                let problem = "root.pem is there without root.key; restore both from a backup".into();
                return Err(HomeError::Damaged { path: keys.join("root.key"), problem });
            }
        };
        let label_path = keys.join("label.key");
        let label_key = match read_bytes(&label_path)? {
            Some(bytes) => bytes.try_into().map_err(|_| HomeError::Damaged {
                path: label_path.clone(),
                problem: "32 bytes are expected".into(),
            })?,
            None => {
                let key = proto::pki::random::<32>()?;
                write_file(&label_path, &key, 0o600)?;
                key
            }
        };
        let home = Self {
            root: root.to_owned(),
            _lock: lock,
            hub: hub_file.hub,
            restore_count: hub_file.restore_count,
            authority,
            label_key,
        };
        home.write_operator(now)?;
        Ok(home)
    }

    fn write_operator(&self, now: SystemTime) -> Result<(), HomeError> {
        // A tool may be reading the pair right now: it is only replaced when
        // it runs out.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let fresh = operator_credentials(&self.root).is_ok_and(|(pair, _)| {
            let until = pair.validity().map_or(0, |(_, until)| until);
            until > i64::try_from(seconds + OPERATOR_LIFE.as_secs() / 3).unwrap_or(i64::MAX)
        });
        if fresh {
            return Ok(());
        }
        let me = self.authority.issue(&Identity::Operator(Identity::LOCAL.into()), now, OPERATOR_LIFE)?;
        let keys = self.root.join("keys");
        write_file(&keys.join("operator.key"), me.key_pem.as_bytes(), 0o600)?;
        write_file(&keys.join("operator.pem"), me.chain_pem.as_bytes(), 0o600)
    }

    /// Says that work begins: every part was built, and what happens from now on
    /// happens here alone.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn begin(&self) -> Result<(), HomeError> {
        crate::moved::begun(&self.root)
    }

    /// A path below the data directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The controller's own certificate, made anew.
    ///
    /// # Errors
    /// Where keys cannot be made.
    pub fn server_credentials(&self, now: SystemTime) -> Result<Credentials, HomeError> {
        // Nothing renews it while the controller runs, so it must outlast any
        // uptime; its key is made anew at each start.
        Ok(self.authority.issue(&Identity::Controller, now, Duration::from_hours(24 * 365 * 5))?)
    }

    /// Where the last controller listened, so that agents find this one.
    #[must_use]
    pub fn last_rendezvous(&self) -> Option<Rendezvous> {
        rendezvous(&self.root)
    }

    /// Tells tools where this controller listens.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn announce(&self, at: &Rendezvous) -> Result<(), HomeError> {
        write_file(&self.root.join("controller.json"), &serde_json::to_vec(at).unwrap_or_default(), 0o600)
    }
}

/// Where a controller of this data directory listens or last listened.
#[must_use]
pub fn rendezvous(root: &Path) -> Option<Rendezvous> {
    serde_json::from_slice(&fs::read(root.join("controller.json")).ok()?).ok()
}

/// The operator's credentials and the root, as the controller left them.
///
/// # Errors
/// Where they are not there or cannot be read.
pub fn operator_credentials(root: &Path) -> Result<(Credentials, String), HomeError> {
    let keys = root.join("keys");
    let need = |name: &str| {
        let path = keys.join(name);
        fs::read_to_string(&path).map_err(io_error(&path.clone()))
    };
    let credentials = Credentials { chain_pem: need("operator.pem")?, key_pem: need("operator.key")? };
    Ok((credentials, need("root.pem")?))
}

pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HomeError::Io { path: path.to_owned(), source }),
    }
}

/// Which installation a data directory belongs to, if it was used before.
/// Disturbs no controller that holds it.
#[must_use]
pub fn hub_of(root: &Path) -> Option<HubId> {
    let file = root.join("hub.json");
    let text = read_text(&file).ok()??;
    parse::<HubFile>(&file, &text).ok().map(|file| file.hub)
}

pub(crate) fn read_text(path: &Path) -> Result<Option<String>, HomeError> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| HomeError::Damaged { path: path.to_owned(), problem: "not text".into() })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, HomeError> {
    serde_json::from_str(text)
        .map_err(|e| HomeError::Damaged { path: path.to_owned(), problem: e.to_string() })
}
