//! A real SSH server on loopback, for the user that runs the tests, with keys
//! of its own; nothing of the user's own configuration is read by it. Where
//! there is no such program a test says so and is over.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Uid, User};
use tokio::net::TcpSocket;

use super::super::stage::{Stage, wait_or};

/// What is needed and is there.
pub(in crate::scenarios) struct Programs {
    sshd: PathBuf,
}

/// The server's program, or why a test cannot be tried.
pub(in crate::scenarios) fn programs() -> Option<Programs> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/sshd/usr/sbin/sshd");
    let sshd = [PathBuf::from("/usr/sbin/sshd"), PathBuf::from("/usr/local/sbin/sshd"), own];
    let sshd = sshd.into_iter().find(|path| path.exists());
    let client = |name: &str| Command::new(name).arg("-V").stderr(Stdio::null()).output().is_ok();
    match sshd {
        Some(sshd) if client("ssh") => Some(Programs { sshd }),
        _ => {
            eprintln!("SKIPPED: there is no sshd and ssh on this computer");
            None
        }
    }
}

/// One server. Its sessions end with it.
pub(in crate::scenarios) struct Sshd {
    child: Option<Child>,
    sshd: PathBuf,
    dir: PathBuf,
    pub(in crate::scenarios) port: u16,
    /// Has the port while the server does not run: who connects is refused,
    /// nobody else is given it, and the server may still bind it.
    _place: TcpSocket,
}

impl Sshd {
    /// Keys and settings for one; it does not run yet.
    pub(in crate::scenarios) fn prepare(stage: &Stage, programs: Programs) -> Self {
        let dir = stage.path("sshd");
        fs::create_dir(&dir).unwrap();
        for key in ["host", "user"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
            assert!(make.status().unwrap().success());
        }
        fs::copy(dir.join("user.pub"), dir.join("authorized_keys")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let place = TcpSocket::new_v4().unwrap();
        place.set_reuseaddr(true).unwrap();
        place.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = place.local_addr().unwrap().port();
        let at = dir.display();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nAllowTcpForwarding no\n\
             AllowStreamLocalForwarding no\nPermitTTY no\nMaxStartups 100\nPrintMotd no\n"
        );
        fs::write(dir.join("config"), settings).unwrap();
        if Uid::effective().is_root() {
            // Where the server wants to be confined.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        Self { child: None, sshd: programs.sshd, dir, port, _place: place }
    }

    /// The same with more settings, which come first.
    pub(in crate::scenarios) fn with(self, settings: &str) -> Self {
        let config = self.dir.join("config");
        let usual = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{settings}\n{usual}")).unwrap();
        self
    }

    /// Shows another host key from its next start on.
    pub(in crate::scenarios) fn change_host_key(&mut self) {
        self.end();
        for name in ["host", "host.pub"] {
            fs::remove_file(self.dir.join(name)).unwrap();
        }
        let mut make = Command::new("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(self.dir.join("host"));
        assert!(make.status().unwrap().success());
    }

    /// Starts it.
    pub(in crate::scenarios) fn start(&mut self) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let mut command = Command::new(&self.sshd);
        command.args(["-D", "-e", "-f"]).arg(self.dir.join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let answers = || TcpStream::connect(("127.0.0.1", self.port)).ok();
        wait_or("the SSH server", answers, || fs::read_to_string(self.dir.join("log")).unwrap_or_default());
    }

    /// The process that listens.
    pub(in crate::scenarios) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("it runs").id()).unwrap()
    }

    /// The key that opens it.
    pub(in crate::scenarios) fn identity(&self) -> PathBuf {
        self.dir.join("user")
    }

    /// Its own public key.
    pub(in crate::scenarios) fn host_key(&self) -> String {
        fs::read_to_string(self.dir.join("host.pub")).unwrap()
    }

    /// Whose login it is.
    pub(in crate::scenarios) fn user() -> String {
        User::from_uid(Uid::effective()).unwrap().expect("a user").name
    }
}

impl Sshd {
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}
