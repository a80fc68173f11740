//! Azure Blob Storage: the contract over Azurite, Microsoft's own emulator,
//! where `OUTLAST_AZURITE` or `PATH` has its program `azurite-blob`
//! (`npm install azurite`); else the test says by name that it was skipped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use artifacts::store::booklet::Plan;
use artifacts::store::contract::contract;
use artifacts::store::remote::Patience;
use artifacts::store::remote::azure::{AccountKey, AzureConfig, open};

const PROGRAM: &str = "OUTLAST_AZURITE";
/// The account that every installation of the emulator has, as its documents print it.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

struct Azurite {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(test: &str) -> Option<Azurite> {
    let dir = tempfile::tempdir().expect("a directory");
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr();
    let address = free.expect("its address");
    let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "azurite-blob".into());
    let spawned = Command::new(program)
        .args([
            "--silent",
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
        ])
        .arg(address.port().to_string())
        .arg("--location")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = spawned else {
        println!("skipped: {test}: there is no azurite-blob here ({PROGRAM} may name it)");
        return None;
    };
    let mut server = Azurite { child, address, _dir: dir };
    for _ in 0..1_500 {
        if std::net::TcpStream::connect(address).is_ok() {
            return Some(server);
        }
        assert!(matches!(server.child.try_wait(), Ok(None)), "azurite ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("azurite does not listen");
}

/// `Put Container`, signed with the account's key as Azure's documents say
/// (`Authorize with Shared Key`): an independent word on the emulator.
fn create_container(server: &Azurite) {
    let said = Command::new("date").env("LC_ALL", "C").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).output();
    let date = String::from_utf8(said.expect("a date").stdout).expect("text").trim().to_owned();
    let to_sign = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/runs\nrestype:container"
    );
    let key = data_encoding::BASE64.decode(KEY.as_bytes()).expect("a key");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let tag = aws_lc_rs::hmac::sign(&key, to_sign.as_bytes());
    let signature = data_encoding::BASE64.encode(tag.as_ref());
    let mut wire = TcpStream::connect(server.address).expect("azurite");
    write!(
        wire,
        "PUT /{ACCOUNT}/runs?restype=container HTTP/1.1\r\nHost: {}\r\nx-ms-date: {date}\r\nx-ms-version: 2021-08-06\r\n\
         Authorization: SharedKey {ACCOUNT}:{signature}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        server.address
    )
    .expect("asked");
    let mut answer = String::new();
    wire.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

fn config(server: &Azurite, key: AccountKey) -> AzureConfig {
    AzureConfig {
        account: ACCOUNT.into(),
        container: "runs".into(),
        prefix: "team/outlast".into(),
        endpoint: Some(format!("http://{}/{ACCOUNT}", server.address)),
        ca_pem: None,
        allow_http: true,
        key,
        patience: Patience::default(),
        page: 2,
    }
}

#[tokio::test]
async fn azure_keeps_the_contract() {
    let Some(server) = start("azure_keeps_the_contract") else { return };
    let key = AccountKey::from_env(|_| Some(KEY.into())).expect("a key");
    // Containers are made by their owner.
    create_container(&server);
    let store = open(config(&server, key.clone())).expect("a good configuration");
    contract(&store).await;
    // What could overwrite is not handed out.
    let valid = Duration::from_secs(60);
    let plan = Plan { packs: 1..2, manifests: 1..2, valid, covers: valid };
    let refused = store.booklet("run", 1, &plan, 0).await.expect_err("no booklet");
    assert!(refused.to_string().contains("could overwrite"), "{refused}");
}

#[test]
fn a_key_is_read_from_a_private_file_and_shows_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("private");
    let key = AccountKey::from_file(&file).expect("a key");
    assert_eq!(format!("{key:?}"), "AccountKey(..)");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("open");
    assert!(AccountKey::from_file(&file).unwrap_err().to_string().contains("chmod 600"));
    let none = AccountKey::from_env(|_| None).unwrap_err().to_string();
    assert!(none.contains("`key_file`") && none.contains("AZURE_STORAGE_KEY"), "{none}");
}
