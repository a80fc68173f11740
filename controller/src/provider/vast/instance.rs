//! What Vast.ai says of a machine: its state, its address, its price, and
//! whether a list is whole. Pure. Everything may be missing, null or of another
//! type: what cannot be read makes a list partial, never shorter.

use lifecycle::meter::{Billed, Rates};
use serde_json::Value;

use super::answer::{id, printable};
use crate::provider::{InstanceState, Stopped};

/// Rows read of one page at most; the vendor sends 25.
const PAGE_MAX: usize = 1_000;
/// Longest label taken.
const LABEL_MAX: usize = 1_024;
/// Words in `status_msg` by which a start has failed.
const FAILED_WORDS: [&str; 5] =
    ["error", "failed", "exception", "oci runtime create failed", "permission denied"];

/// One machine as the vendor describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) id: u64,
    /// The physical machine; 0: not told.
    pub(super) machine: u64,
    /// The kind of its GPUs; empty: not told.
    pub(super) gpu: String,
    pub(super) label: String,
    pub(super) state: InstanceState,
    /// The vendor's own words for the state.
    pub(super) said: String,
    /// What it costs while it runs; `None`: not told.
    pub(super) rates: Option<Rates>,
    /// What of that is billed now.
    pub(super) billed: Billed,
    /// It does not run and could.
    pub(super) stopped: Option<Stopped>,
    /// Where an sshd answers: straight to the machine, and by the vendor's proxy.
    pub(super) direct: Option<(String, u16)>,
    pub(super) proxy: Option<(String, u16)>,
}

/// One machine's row; `None` where it has no usable number.
pub(super) fn row(value: &Value) -> Option<Row> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default();
    let label: String = text("label").chars().take(LABEL_MAX).collect();
    let (state, said) = state(text("actual_status"), text("intended_status"), text("status_msg"));
    let host = |name: &str| Some(text(name)).filter(|host| is_host(host)).map(str::to_owned);
    let port = |value: &Value| id(value).and_then(|n| u16::try_from(n).ok());
    let mapped = value.get("ports").and_then(|ports| ports.get("22/tcp")).and_then(|list| list.get(0));
    let mapped = mapped.and_then(|one| one.get("HostPort")).and_then(port);
    let jupyter = text("image_runtype").contains("jupyter");
    let proxied = value.get("ssh_port").and_then(port).and_then(|p| p.checked_add(u16::from(jupyter)));
    Some(Row {
        id: value.get("id").and_then(id)?,
        machine: value.get("machine_id").and_then(id).unwrap_or(0),
        gpu: printable(text("gpu_name")).chars().take(64).collect(),
        label,
        state,
        said,
        rates: rates(value),
        billed: billed(text("actual_status")),
        stopped: stopped(value, text("actual_status")),
        direct: host("public_ipaddr").zip(mapped),
        proxy: host("ssh_host").zip(proxied),
    })
}

/// What a machine costs. The disk of a stopped one may be dearer than that of
/// one that runs: the dearer counts.
fn rates(value: &Value) -> Option<Rates> {
    let usd =
        |value: Option<&Value>| value.and_then(Value::as_f64).filter(|usd| usd.is_finite() && *usd >= 0.0);
    let inner = |part: &str| usd(value.get(part).and_then(|part| part.get("diskHour"))).unwrap_or(0.0);
    let disk = usd(value.get("storage_total_cost")).unwrap_or(0.0);
    let total = usd(value.get("dph_total")).filter(|usd| *usd > 0.0)?;
    let compute = usd(value.get("dph_base")).filter(|usd| *usd > 0.0).unwrap_or(0.0).max(total - disk);
    Some(Rates {
        compute_usd_per_hour: compute,
        disk_usd_per_hour: disk.max(inner("instance")).max(inner("search")),
        up_usd_per_gb: usd(value.get("inet_up_cost")).unwrap_or(0.0),
        down_usd_per_gb: usd(value.get("inet_down_cost")).unwrap_or(0.0),
    })
}

/// A stopped machine keeps its disk, whoever stopped it; a contract that has
/// ended does not come back.
fn stopped(value: &Value, actual: &str) -> Option<Stopped> {
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let over = value.get("end_date").and_then(Value::as_f64).is_some_and(|end| end <= now_s);
    if actual != "stopped" || over {
        return None;
    }
    let usd =
        |name: &str| value.get(name).and_then(Value::as_f64).filter(|usd| usd.is_finite() && *usd > 0.0);
    let is_bid = value.get("is_bid").and_then(Value::as_bool).unwrap_or(false);
    let bid_usd = if is_bid { Some(usd("dph_base")?) } else { None };
    Some(Stopped { bid_usd, winning_usd: usd("min_bid").filter(|_| is_bid) })
}

/// What is billed in a state. Who is offline is not billed, it is said; but
/// that is soon over, and is not relied upon. A word that is not known counts
/// as running.
fn billed(actual: &str) -> Billed {
    match actual {
        "" | "created" | "loading" | "stopped" | "exited" | "offline" => Billed::Disk,
        _ => Billed::All,
    }
}

/// A host name or address, and nothing that a command line could take for an
/// option.
fn is_host(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    !text.is_empty() && text.len() <= 253 && !text.starts_with('-') && text.chars().all(allowed)
}

/// How far along a machine is, and the vendor's words for it.
///
/// `exited`, `unknown` and `offline` never become `running` by themselves, and
/// a machine that was outbid comes back under a generation that is over: all
/// of them are left and destroyed. `frozen` is billed and may go on.
fn state(actual: &str, intended: &str, message: &str) -> (InstanceState, String) {
    let message = printable(message);
    let starting = matches!(actual, "" | "created" | "loading");
    let failed = starting && {
        let low = message.to_lowercase();
        FAILED_WORDS.iter().any(|word| low.contains(word))
    };
    let state = match actual {
        _ if failed => InstanceState::Terminal,
        "running" | "frozen" => InstanceState::Up,
        "exited" | "unknown" | "offline" | "stopped" => InstanceState::Terminal,
        // Made, but nobody means it to run: outbid before it began.
        "" | "created" if intended == "stopped" => InstanceState::Terminal,
        _ => InstanceState::Booting,
    };
    let actual = if actual.is_empty() { "provisioning".to_owned() } else { printable(actual) };
    (state, if message.is_empty() { actual } else { format!("{actual}: {message}") })
}

/// An answer to "show one".
#[derive(Debug, Clone, PartialEq)]
pub(super) enum One {
    /// It is there.
    Is(Box<Row>),
    /// It is not.
    Gone,
    /// The answer says neither.
    Unclear,
}

/// One object under the plural key; null for what does not exist.
pub(super) fn one(answer: &Value, asked: u64) -> One {
    match answer.get("instances") {
        Some(Value::Null) => One::Gone,
        Some(value @ Value::Object(_)) => match row(value) {
            // Another machine's row is no word on this one.
            Some(row) if row.id == asked => One::Is(Box::new(row)),
            _ => One::Unclear,
        },
        _ => One::Unclear,
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    /// Where the next page begins; `None`: this was the last.
    pub(super) next: Option<String>,
    /// Machines that there are in all, if it is told.
    pub(super) total: Option<u64>,
    /// Some row could not be read.
    pub(super) torn: bool,
}

/// A page; `None` where the answer is no list.
pub(super) fn page(answer: &Value) -> Option<Page> {
    let list = answer.get("instances")?.as_array()?;
    let rows: Vec<Row> = list.iter().take(PAGE_MAX).filter_map(row).collect();
    let count = |name: &str| answer.get(name).and_then(Value::as_u64);
    let next = match answer.get("next_token") {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) if token.is_empty() => None,
        Some(Value::String(token)) => Some(token.clone()),
        Some(other) => Some(other.to_string()),
    };
    let torn = rows.len() != list.len();
    Some(Page { rows, next, total: count("total_instances").or_else(|| count("instances_found")), torn })
}

/// Whether pages that ended are all that there is: as many different machines
/// as the vendor says that there are. An account of thousands that suddenly
/// lists none must not be believed where the count says otherwise.
pub(super) fn whole(rows: &[Row], total: Option<u64>, torn: bool) -> bool {
    let mut ids: Vec<u64> = rows.iter().map(|row| row.id).collect();
    ids.sort_unstable();
    ids.dedup();
    !torn && total.is_some_and(|total| usize::try_from(total).is_ok_and(|total| total == ids.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn seen(actual: &Value, intended: &str, message: &str) -> (InstanceState, String) {
        let row = row(&json!({
            "id": 7, "actual_status": actual, "intended_status": intended, "status_msg": message
        }));
        let row = row.unwrap();
        (row.state, row.said)
    }

    #[test]
    fn all_states_of_the_vendor_have_a_meaning() {
        use InstanceState::{Booting, Terminal, Up};
        for (actual, state) in [
            (json!(null), Booting),
            (json!("created"), Booting),
            (json!("loading"), Booting),
            (json!("running"), Up),
            (json!("stopped"), Terminal),
            (json!("rebooting"), Booting),
            (json!("frozen"), Up),
            (json!("exited"), Terminal),
            (json!("unknown"), Terminal),
            (json!("offline"), Terminal),
            (json!("something new"), Booting),
            (json!(5), Booting),
        ] {
            assert_eq!(seen(&actual, "running", "").0, state, "{actual}");
        }
        for message in ["Error: OCI runtime create failed: x", "docker: permission denied", "pull failed"] {
            assert_eq!(seen(&json!("loading"), "running", message).0, Terminal, "{message}");
            assert_eq!(seen(&json!("running"), "running", message).0, Up, "an old message: {message}");
        }
        assert_eq!(seen(&json!(null), "stopped", "").0, Terminal, "outbid before it began");
        assert_eq!(
            seen(&json!("loading"), "running", "pulling\n\u{1b}[2J image").1,
            "loading: pulling [2J image"
        );
    }

    #[test]
    fn the_way_in_is_the_mapped_port_and_else_the_proxy() {
        let mut one = json!({
            "id": 7, "public_ipaddr": " 203.0.113.9\n", "ssh_host": "ssh5.vast.ai", "ssh_port": 17_006,
            "image_runtype": "ssh_direc ssh_proxy", "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "41022"}]}
        });
        let at = |value: &Value| {
            let row = row(value).unwrap();
            (row.direct, row.proxy)
        };
        let direct = Some(("203.0.113.9".to_owned(), 41_022));
        assert_eq!(at(&one), (direct, Some(("ssh5.vast.ai".into(), 17_006))));
        one["image_runtype"] = json!("jupyter_direc ssh_proxy");
        one["ports"] = json!(null);
        assert_eq!(at(&one), (None, Some(("ssh5.vast.ai".into(), 17_007))));
        for hostile in ["-oProxyCommand=x", "a b", "a;b", "", "h\u{0}"] {
            one["ssh_host"] = json!(hostile);
            assert_eq!(at(&one).1, None, "{hostile}");
        }
        one["ssh_port"] = json!(70_000);
        assert_eq!(at(&one).1, None);
    }

    #[test]
    fn only_null_says_that_a_machine_is_gone() {
        assert_eq!(one(&json!({"instances": null}), 7), One::Gone);
        assert!(matches!(one(&json!({"instances": {"id": 7}}), 7), One::Is(_)));
        for unclear in [
            json!({}),
            json!([]),
            json!({"success": true}),
            json!({"instances": []}),
            json!({"instances": {}}),
            json!({"instances": {"id": 8}}),
            json!({"instances": "gone"}),
        ] {
            assert_eq!(one(&unclear, 7), One::Unclear, "{unclear}");
        }
    }

    #[test]
    fn a_list_is_whole_only_when_its_count_agrees() {
        let list = |rows: Value, total: Value| {
            let page =
                page(&json!({"instances": rows, "total_instances": total, "next_token": null})).unwrap();
            whole(&page.rows, page.total, page.torn)
        };
        assert!(list(json!([{"id": 1}, {"id": 2}]), json!(2)) && list(json!([]), json!(0)));
        assert!(!list(json!([{"id": 1}]), json!(null)) && !list(json!([]), json!(null)), "no count was told");
        assert!(!list(json!([]), json!(3)), "empty, and yet there are three");
        assert!(!list(json!([{"id": 1}, {"id": 1}]), json!(2)), "one of them twice");
        assert!(!list(json!([{"id": 1}, {}]), json!(2)), "one cannot be read");
        assert!(page(&json!({"success": true})).is_none() && page(&json!({"instances": null})).is_none());
        let more = page(&json!({"instances": [], "next_token": "abc"})).unwrap();
        assert_eq!(more.next.as_deref(), Some("abc"));
    }

    proptest! {
        #[test]
        fn no_row_makes_it_fail(
            field in prop::sample::select(vec!["id", "label", "actual_status", "status_msg", "ports", "public_ipaddr",
                "ssh_host", "ssh_port", "dph_total", "image_runtype"]),
            value in prop::sample::select(vec![json!(null), json!(""), json!([]), json!({}), json!(-1), json!(1e300),
                json!(true), json!({"22/tcp": []}), json!({"22/tcp": [{"HostPort": 0}]}), json!({"22/tcp": 5})]),
        ) {
            let mut value_row = json!({"id": 7, "label": "x", "ports": {"22/tcp": [{"HostPort": "1"}]}});
            value_row[field] = value;
            if let Some(row) = row(&value_row) {
                prop_assert!(row.id > 0);
            }
        }
    }
}
