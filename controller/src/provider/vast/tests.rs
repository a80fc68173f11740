//! The provider against answers that are written down, over a real port: what
//! it sends, and what it makes of lost, torn, lying and refusing answers.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use lifecycle::question::Trouble;
use lifecycle::spec::Market;

use super::order::IMAGE;
use super::*;
use crate::provider::contract;

mod keys;

/// One request as it came.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    head: String,
    body: Value,
}

/// What is answered; `None`: the connection is closed without a word.
type Script = dyn Fn(&str) -> Option<(u16, String)> + Send + Sync;

struct Vendor {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    keys: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl Vendor {
    async fn new(script: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, script): (_, Arc<Script>) = (seen.clone(), Arc::new(script));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, log.clone(), script.clone()));
            }
        });
        Self { url, seen, keys: tempfile::tempdir().unwrap(), _serving: serving }
    }

    fn provider(&self) -> VastProvider {
        let config = VastConfig {
            url: Some(self.url.clone()),
            keys: self.keys.path().to_owned(),
            boot_deadline: Duration::from_mins(10),
            pace_percent: 0,
        };
        let env = |name: &str| (name == "VAST_API_KEY").then(|| "canary-key".to_owned());
        VastProvider::new(config, env).unwrap()
    }

    /// Method and path of each request.
    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
    }

    fn sent(&self, begins: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.line.starts_with(begins)).cloned().collect()
    }
}

async fn serve(mut stream: tokio::net::TcpStream, log: Arc<Mutex<Vec<Seen>>>, script: Arc<Script>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let whole = end + 4 + length.unwrap_or(0);
        while bytes.len() < whole {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = serde_json::from_slice(&bytes[end + 4..whole]).unwrap_or_default();
        bytes.drain(..whole);
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        log.lock().unwrap().push(Seen { line: line.clone(), head, body });
        let Some((status, text)) = script(&line) else { return };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn offers(asks: &[u64]) -> String {
    let row = |ask: &u64| {
        json!({
            "id": ask, "machine_id": ask + 1, "host_id": 1, "gpu_name": "RTX 4090", "num_gpus": 1, "gpu_ram": 24_000,
            "geolocation": "Norway, NO", "reliability": 0.99, "dph_total": 0.3 + *ask as f64 / 1e4, "min_bid": 0.1,
            "rentable": true, "rented": false, "instance": {"diskHour": 0.02}
        })
    };
    json!({ "offers": asks.iter().map(row).collect::<Vec<_>>() }).to_string()
}

/// Keys, offers 1 to 3, and the orders as `order` answers them.
async fn market(order: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static) -> Vendor {
    Vendor::new(move |line| match line {
        "GET /api/v0/ssh/" => Some((200, "[]".into())),
        "POST /api/v0/ssh/" => Some((200, r#"{"success":true}"#.into())),
        "POST /api/v0/bundles/" => Some((200, offers(&[1, 2, 3]))),
        "GET /api/v0/instances/77/?owner=me" => Some((200, shown(77, &wanted().label))),
        "GET /api/v0/instances/78/?owner=me" => Some((200, shown(78, &wanted().label))),
        _ => order(line),
    })
    .await
}

fn shown(id: u64, label: &str) -> String {
    json!({"instances": {"id": id, "label": label, "actual_status": "running"}}).to_string()
}

fn wanted() -> CreateRequest {
    let mut request = contract::request(&"m".repeat(26), "outlast:hub/machine/mac", "");
    request.max_usd_per_hour = Some(0.5);
    request
}

const ORDER: &str = "PUT /api/v0/asks/";

#[tokio::test]
async fn a_machine_is_ordered_as_the_vendor_documents_it_and_the_key_is_registered_once() {
    let vendor = market(|_| Some((200, r#"{"success":true,"new_contract":77}"#.into()))).await;
    let provider = vendor.provider();
    for _ in 0..2 {
        assert_eq!(provider.create(&wanted()).await, CreateOutcome::Created { instance: "77".into() });
    }
    assert_eq!(
        vendor.lines(),
        [
            "GET /api/v0/ssh/",
            "POST /api/v0/ssh/",
            "POST /api/v0/bundles/",
            "PUT /api/v0/asks/1/",
            "GET /api/v0/instances/77/?owner=me",
            "POST /api/v0/bundles/",
            "PUT /api/v0/asks/1/",
            "GET /api/v0/instances/77/?owner=me"
        ]
    );
    let order = &vendor.sent(ORDER)[0];
    for (key, value) in [
        ("client_id", json!("me")),
        ("cancel_unavail", json!(true)),
        ("price", json!(null)),
        ("disk", json!(40.0)),
        ("label", json!("outlast:hub/machine/mac")),
        ("runtype", json!("ssh_direc ssh_proxy")),
        ("image", json!(IMAGE)),
    ] {
        assert_eq!(order.body[key], value, "{key}");
    }
    let onstart = order.body["onstart"].as_str().unwrap();
    assert!(onstart.len() < 3_000 && onstart.contains("sleep 1200") && !onstart.contains("@{"), "{onstart}");
    let search = &vendor.sent("POST /api/v0/bundles/")[0];
    assert_eq!(search.body["dph_total"], json!({"lte": 0.5}));
    let all = format!("{:?}", vendor.seen.lock().unwrap());
    assert_eq!(
        all.matches("canary-key").count(),
        vendor.lines().len(),
        "in one header of each call, nowhere else"
    );
    assert!(order.head.to_lowercase().contains("authorization: bearer canary-key"), "{}", order.head);
}

#[tokio::test]
async fn an_interruptible_machine_is_bid_for_above_the_lowest_and_below_the_ceiling() {
    let vendor = market(|_| Some((200, r#"{"success":true,"new_contract":77}"#.into()))).await;
    let mut request = wanted();
    request.machine.market = Market::Interruptible;
    for (most, price) in [(Some(0.5), 0.11), (Some(0.125), 0.105)] {
        request.max_usd_per_hour = most;
        vendor.provider().create(&request).await;
        assert_eq!(vendor.sent(ORDER).last().unwrap().body["price"], json!(price), "{most:?}");
    }
    assert_eq!(vendor.sent("POST /api/v0/bundles/")[0].body["type"], json!("bid"));
}

#[tokio::test]
async fn an_order_whose_answer_is_lost_is_never_sent_again() {
    for answer in [None, Some((502, "<html>".to_owned())), Some((200, r#"{"success":true}"#.to_owned()))] {
        let told = answer.clone();
        let vendor = market(move |_| told.clone()).await;
        let outcome = vendor.provider().create(&wanted()).await;
        assert!(matches!(outcome, CreateOutcome::Unknown { .. }), "{answer:?}: {outcome:?}");
        assert_eq!(vendor.sent(ORDER).len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn offers_that_are_gone_are_followed_by_the_next_and_refusals_are_not() {
    let gone = r#"{"success":false,"error":"invalid_args","msg":"error 404/3603: no_such_ask Instance"}"#;
    let vendor = market(move |line| {
        Some(match line {
            "PUT /api/v0/asks/1/" => (404, gone.into()),
            "PUT /api/v0/asks/2/" => (410, r#"{"error":"no_such_ask"}"#.into()),
            _ => (200, r#"{"success":true,"new_contract":"78"}"#.into()),
        })
    })
    .await;
    assert_eq!(vendor.provider().create(&wanted()).await, CreateOutcome::Created { instance: "78".into() });
    let vendor = market(move |_| Some((404, gone.into()))).await;
    let CreateOutcome::Rejected { reason, .. } = vendor.provider().create(&wanted()).await else { panic!() };
    assert!(reason.contains("no_such_ask"), "{reason}");
    assert_eq!(vendor.sent(ORDER).len(), 3);
    for refusal in
        [(403, r#"{"error":"no_credit","msg":"out of credit"}"#), (429, "API requests too frequent")]
    {
        let vendor = market(move |_| Some((refusal.0, refusal.1.into()))).await;
        let outcome = vendor.provider().create(&wanted()).await;
        assert!(matches!(outcome, CreateOutcome::Rejected { .. }), "{refusal:?}: {outcome:?}");
        assert_eq!(vendor.sent(ORDER).len(), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_machine_that_an_answer_names_is_ours_once_it_is_seen_to_carry_the_label() {
    let order = (200, r#"{"success":true,"new_contract":90}"#.to_owned());
    for shown in [
        (200, shown(90, "somebody's")),
        (200, shown(91, &wanted().label)),
        (200, r#"{"instances":null}"#.to_owned()),
        (401, r#"{"error":"auth_error"}"#.to_owned()),
    ] {
        let (order, told) = (order.clone(), shown.clone());
        let vendor =
            market(move |line| Some(if line.starts_with("GET") { told.clone() } else { order.clone() }))
                .await;
        let provider = vendor.provider();
        let outcome = provider.create(&wanted()).await;
        assert!(matches!(outcome, CreateOutcome::Unknown { .. }), "{shown:?}: {outcome:?}");
        assert_eq!(vendor.sent(ORDER).len(), 1, "never ordered twice");
        assert!(vendor.sent("DELETE").is_empty() && provider.host("90").await.is_none_or(|h| h != "2"));
    }
    let theirs = Vendor::new(|_| Some((200, shown(90, "somebody's")))).await;
    assert_eq!(theirs.provider().label("90").await.as_deref(), Some("somebody's"));
}

#[tokio::test]
async fn an_offer_that_is_refused_is_followed_by_the_next_and_its_host_left_out() {
    let own = (403, r#"{"error":"forbidden","msg":"You can not rent your own machine"}"#);
    let odd = (403, r#"{"error":"forbidden","msg":"not here"}"#);
    let moved = (400, r#"{"success":false,"error":"invalid_price","msg":"too low"}"#);
    for (refusal, second) in [(own, "2"), (odd, "2"), (moved, "1")] {
        let vendor = market(move |line| {
            let first = line == "PUT /api/v0/asks/1/";
            Some(if first {
                (refusal.0, refusal.1.into())
            } else {
                (200, r#"{"success":true,"new_contract":77}"#.into())
            })
        })
        .await;
        let provider = vendor.provider();
        for _ in 0..2 {
            let outcome = provider.create(&wanted()).await;
            assert_eq!(outcome, CreateOutcome::Created { instance: "77".into() }, "{refusal:?}");
        }
        let orders: Vec<String> = vendor.sent(ORDER).into_iter().map(|seen| seen.line).collect();
        assert_eq!(orders[2], format!("PUT /api/v0/asks/{second}/"), "{refusal:?}: {orders:?}");
    }
    // Where every host refuses in a word that is not about it, it is the key; its hosts are not left out.
    for (refusal, told, orders) in [(odd, Trouble::Key, 3), (moved, Trouble::NoOffer, 2)] {
        let vendor = market(move |_| Some((refusal.0, refusal.1.into()))).await;
        let provider = vendor.provider();
        for n in 1..3 {
            let CreateOutcome::Rejected { trouble, .. } = provider.create(&wanted()).await else { panic!() };
            assert_eq!((trouble, vendor.sent(ORDER).len()), (told, n * orders), "{refusal:?}");
        }
    }
}

#[tokio::test]
async fn a_machine_made_by_a_call_that_failed_is_destroyed_at_once() {
    let ours = wanted().label;
    for (label, answer, deletes, rejected) in [
        (ours.as_str(), (200, r#"{"success":true}"#), 1, true),
        (ours.as_str(), (502, ""), 1, false),
        ("somebody's", (200, r#"{"success":true}"#), 0, false),
    ] {
        let row = json!({"instances": {"id": 91, "label": label, "actual_status": "stopped"}}).to_string();
        let vendor = market(move |line| {
            Some(if line.starts_with("DELETE") {
                (answer.0, answer.1.into())
            } else if line.starts_with("GET /api/v0/instances/91/") {
                (200, row.clone())
            } else {
                (400, r#"{"success":false,"error":"bid","msg":"too low","new_contract":91}"#.into())
            })
        })
        .await;
        let outcome = vendor.provider().create(&wanted()).await;
        assert_eq!(vendor.sent("DELETE /api/v0/instances/91/").len(), deletes, "{label}");
        assert_eq!(matches!(outcome, CreateOutcome::Rejected { .. }), rejected, "{outcome:?}");
        assert_eq!(matches!(outcome, CreateOutcome::Unknown { .. }), !rejected, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_host_that_failed_is_not_rented_again_and_each_machine_has_its_host() {
    let vendor = market(|_| Some((200, r#"{"success":true,"new_contract":78}"#.into()))).await;
    // Offer 1 is of the physical machine 2, offer 2 of 3, and so on.
    let mut request = wanted();
    request.avoid = vec!["2".into(), "3".into()];
    let provider = vendor.provider();
    assert_eq!(provider.create(&request).await, CreateOutcome::Created { instance: "78".into() });
    assert!(vendor.lines().contains(&"PUT /api/v0/asks/3/".to_owned()), "{:?}", vendor.lines());
    assert_eq!(provider.host("78").await.as_deref(), Some("4"));
    request.avoid.push("4".into());
    let CreateOutcome::Rejected { reason, trouble, .. } = provider.create(&request).await else { panic!() };
    assert!(trouble == Trouble::NoOffer && reason.contains("besides 3 on hosts that failed"), "{reason}");
}

#[tokio::test]
async fn without_a_usable_offer_or_key_nothing_is_ordered() {
    let vendor = market(|_| None).await;
    let mut request = wanted();
    request.machine.gpus = vec!["H100 SXM".into()];
    let CreateOutcome::Rejected { reason, trouble, .. } = vendor.provider().create(&request).await else {
        panic!()
    };
    assert!(reason.contains("no offer for 1 x H100 SXM under $0.5/h"), "{reason}");
    assert_eq!(trouble, Trouble::NoOffer);
    let keyless = VastProvider::new(vendor.provider().config.clone(), |_| None).unwrap();
    let CreateOutcome::Rejected { reason, trouble, .. } = keyless.create(&request).await else { panic!() };
    assert_eq!(trouble, Trouble::Key);
    assert!(reason.contains("VAST_API_KEY") && reason.contains("manage-keys"), "{reason}");
    assert!(vendor.sent(ORDER).is_empty());
    for open in ["http://x.example", "http://localhost:x@evil.example", "ftp://localhost", "localhost"] {
        let plain = VastConfig { url: Some(open.into()), ..keyless.config.clone() };
        let plain = VastProvider::new(plain, |_| Some("key".into())).unwrap();
        let plain = plain.ready().unwrap_err();
        assert!(plain.contains("https://"), "{plain}");
    }
}

#[tokio::test]
async fn a_list_is_read_to_its_end_and_is_complete_only_if_its_count_agrees() {
    let page = |ids: std::ops::Range<u64>, next: Value, total: u64| {
        let rows: Vec<Value> = ids
            .map(|id| json!({"id": id, "label": if id % 2 == 0 { "outlast:hub/a" } else { "other" }, "actual_status": "running"}))
            .collect();
        (
            200,
            json!({"success": true, "instances": rows, "next_token": next, "total_instances": total})
                .to_string(),
        )
    };
    let two = |total: u64| {
        move |line: &str| {
            Some(if line.contains("after_token=t1") {
                page(26..31, json!(null), total)
            } else {
                page(1..26, json!("t1"), total)
            })
        }
    };
    let vendor = Vendor::new(two(30)).await;
    let Listing::Complete(found) = vendor.provider().list("outlast:hub/").await else { panic!() };
    assert_eq!(found.len(), 15);
    assert!(found.iter().all(|i| i.state == InstanceState::Up && i.label == "outlast:hub/a"));
    assert!(vendor.lines()[0].starts_with("GET /api/v1/instances/?select_filters=%7B%7D&order_by="));
    let Listing::Partial(found) = Vendor::new(two(31)).await.provider().list("outlast:hub/").await else {
        panic!()
    };
    assert_eq!(found.len(), 15);
    let endless = Vendor::new(move |_| Some(page(1..26, json!("t1"), 30))).await;
    assert!(matches!(endless.provider().list("").await, Listing::Partial(_)), "a token that leads nowhere");
    for answer in
        [(410, r#"{"error":"deprecated"}"#), (200, r#"{"success":true}"#), (502, "<html>"), (200, "[]")]
    {
        let vendor = Vendor::new(move |_| Some((answer.0, answer.1.into()))).await;
        let said = vendor.provider().list("outlast:").await;
        assert!(matches!(said, Listing::Error(_)), "{answer:?}: {said:?}");
    }
    let lying = Vendor::new(|_| Some((200, r#"{"instances":[],"total_instances":4}"#.into()))).await;
    assert_eq!(lying.provider().list("outlast:").await, Listing::Partial(Vec::new()));
}

#[tokio::test]
async fn one_machine_is_absent_only_where_the_vendor_says_null_or_not_found() {
    for (answer, presence) in [
        ((200, r#"{"instances":null}"#), Some(Presence::Absent)),
        ((404, r#"{"error":"no_such_instance"}"#), Some(Presence::Absent)),
        (
            (200, r#"{"instances":{"id":7,"actual_status":"exited"}}"#),
            Some(Presence::Present(InstanceState::Terminal)),
        ),
        ((200, r#"{"instances":{"id":8}}"#), None),
        ((200, "{}"), None),
        ((401, r#"{"error":"auth"}"#), None),
        ((502, "bad gateway"), None),
    ] {
        let vendor = Vendor::new(move |_| Some((answer.0, answer.1.into()))).await;
        let said = vendor.provider().get("7").await;
        match presence {
            Some(presence) => assert_eq!(said, presence, "{answer:?}"),
            None => assert!(matches!(said, Presence::Error(_)), "{answer:?}: {said:?}"),
        }
    }
    let never = Vendor::new(|_| None).await;
    assert!(matches!(never.provider().get("7").await, Presence::Error(_)));
    assert_eq!(never.lines().len(), 3, "a question may be asked again");
    assert!(matches!(never.provider().get("7/../8").await, Presence::Error(_)));
    assert!(matches!(never.provider().destroy("").await, DestroyOutcome::Unknown(_)));
    assert!(matches!(never.provider().destroy("7").await, DestroyOutcome::Unknown(_)));
    assert_eq!(never.sent("DELETE").len(), 1);
}

#[tokio::test]
async fn the_route_is_root_at_the_mapped_port_with_the_proxy_behind_it() {
    let row = r#"{"instances":{"id":7,"actual_status":"running","public_ipaddr":"203.0.113.9\n","ssh_host":"ssh5.vast.ai",
        "ssh_port":17006,"ports":{"22/tcp":[{"HostPort":"41022"}]},"dph_total":0.42}}"#;
    let vendor = Vendor::new(move |_| Some((200, row.into()))).await;
    let provider = vendor.provider();
    let route = provider.route("7").await.unwrap();
    assert_eq!((route.address.host.as_str(), route.address.port), ("203.0.113.9", Some(41_022)));
    assert_eq!(route.fallback.unwrap().port, Some(17_006));
    assert_eq!(route.address.user.as_deref(), Some("root"));
    assert_eq!(route.base, ROOT);
    assert!(matches!(route.host_keys, HostKeys::PinFirst { name, .. } if name == "vast-7"));
    let told = provider.terms("7").await.unwrap();
    assert!((told.rates.unwrap().hourly() - 0.42).abs() < 1e-9, "{told:?}");
    let loading = Vendor::new(|_| Some((200, r#"{"instances":{"id":7,"actual_status":null}}"#.into()))).await;
    assert!(matches!(loading.provider().route("7").await, Err(RouteError::NotYet(_))));
    let gone = Vendor::new(|_| Some((200, r#"{"instances":null}"#.into()))).await;
    assert!(matches!(gone.provider().route("7").await, Err(RouteError::Never(_))));
}
