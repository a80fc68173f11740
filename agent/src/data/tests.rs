//! One file from a server that answers as it was told to.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::sum::Sum;
use super::*;

const HELLO: &str = "hello\n";

fn hello() -> Sum {
    Sum::Git("ce013625030ba8dba906f756967f9e9ca394464a".into())
}

struct Place {
    _root: tempfile::TempDir,
    cache: Cache,
    told: Arc<Mutex<Vec<String>>>,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        Self { _root: root, cache, told: Arc::default() }
    }

    /// Fetches from a server that gives these answers, one each; what was asked
    /// for, and what came of it.
    async fn fetch(&self, size: Option<u64>, answers: &[&str]) -> (Vec<String>, Result<(), answer::Trouble>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x?key=secret", listener.local_addr().unwrap());
        let asked = Mutex::new(Vec::new());
        let serve = async {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let range = head.lines().find_map(|line| line.strip_prefix("Range: ")).unwrap_or("all");
                asked.lock().unwrap().push(range.to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let hub = Hub::new(Arc::new(fetcher(Duration::from_mins(3))), HUB, None).unwrap();
        let told = self.told.clone();
        let transfer = Transfer {
            hub: Arc::new(hub),
            cache: self.cache.clone(),
            cancelled: Cancelled::default(),
            came: Arc::default(),
            tell: Arc::new(move |text: &str| told.lock().unwrap().push(text.to_owned())),
        };
        let wanted = Wanted { name: url.clone(), url, size, sum: hello() };
        let done = tokio::select! {
            done = transfer.run(&wanted) => done,
            () = serve => unreachable!(),
        };
        assert!(!self.told.lock().unwrap().join("\n").contains("key=secret"));
        (asked.into_inner().unwrap(), done)
    }
}

fn ok(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn what_broke_off_is_gone_on_from_and_a_server_that_cannot_begins_anew() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhel";
    let rest = ok("206 Partial Content", "Content-Range: bytes 3-5/6\r\n", "lo\n");
    let (asked, done) = Place::new().fetch(None, &[cut, &rest]).await;
    assert_eq!((asked.join(" "), done), ("all bytes=3-".into(), Ok(())));
    // It does not know ranges.
    let (asked, done) = Place::new().fetch(Some(6), &[cut, &ok("200 OK", "", HELLO)]).await;
    assert_eq!((asked.join(" "), done), ("all bytes=3-".into(), Ok(())));
    // It goes on elsewhere.
    let elsewhere = ok("206 Partial Content", "Content-Range: bytes 2-5/6\r\n", "llo\n");
    let (asked, done) = Place::new().fetch(Some(6), &[cut, &elsewhere, &ok("200 OK", "", HELLO)]).await;
    assert_eq!((asked.join(" "), done), ("all bytes=3- all".into(), Ok(())));
    // There is nothing there.
    let nothing = ok("416 Range Not Satisfiable", "Content-Range: bytes */2\r\n", "");
    let (asked, done) = Place::new().fetch(Some(6), &[cut, &nothing, &ok("200 OK", "", HELLO)]).await;
    assert_eq!((asked.join(" "), done), ("all bytes=3- all".into(), Ok(())));
}

#[tokio::test]
async fn what_is_here_is_not_asked_for() {
    let place = Place::new();
    place.fetch(Some(6), &[&ok("200 OK", "", HELLO)]).await.1.unwrap();
    let (asked, done) = place.fetch(Some(6), &[]).await;
    assert_eq!((asked.len(), done), (0, Ok(())));
}

#[tokio::test]
async fn wrong_bytes_are_fetched_anew_a_few_times_and_never_used() {
    let place = Place::new();
    let wrong = ok("200 OK", "", "HELLO\n");
    let (asked, done) = place.fetch(Some(6), &[&wrong, &wrong, &wrong, &wrong]).await;
    let trouble = done.unwrap_err();
    assert_eq!((asked.len(), trouble.passing), (3, false));
    assert!(
        trouble.why.contains("its digest is another") && !trouble.why.contains("key="),
        "{}",
        trouble.why
    );
    assert!(!place.cache.file(&hello()).exists() && !place.cache.part(&hello()).exists());
    // More than announced is not taken either.
    let long = ok("200 OK", "", "hello, world\n");
    let (_, done) = Place::new().fetch(Some(6), &[&long, &ok("200 OK", "", HELLO)]).await;
    assert_eq!(done, Ok(()));
}

#[tokio::test]
async fn what_is_not_there_is_not_asked_for_again() {
    for status in ["404 Not Found", "403 Forbidden", "410 Gone"] {
        let (asked, done) = Place::new().fetch(Some(6), &[&ok(status, "", "")]).await;
        assert_eq!((asked.len(), done.unwrap_err().passing), (1, false), "{status}");
    }
    let busy = ok("503 Busy", "Retry-After: 1\r\n", "");
    let (asked, done) = Place::new().fetch(Some(6), &[&busy, &ok("200 OK", "", HELLO)]).await;
    assert_eq!((asked.len(), done), (2, Ok(())));
}

#[test]
fn too_little_room_is_told_before_anything_is_fetched() {
    let place = Place::new();
    let wanted =
        |size| Wanted { name: "x".into(), url: "https://h/x".into(), size: Some(size), sum: hello() };
    let goal = || Goal::Source("x".into());
    assert!(has_room(&place.cache, &[(wanted(6), goal())]).is_ok());
    let failed = has_room(&place.cache, &[(wanted(1 << 60), goal()), (wanted(1 << 60), goal())]).unwrap_err();
    assert!(
        failed.reason.starts_with("[data] no space left on device: 1152921504.61 GB are needed"),
        "{failed:?}"
    );
    assert!(!failed.transient);
}
