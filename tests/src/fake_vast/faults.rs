//! What goes wrong on purpose. Rules are tried in order at each call; the
//! first that matches fires. What a rule does is data here; it is carried out
//! where calls are answered.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{Change, Status};
use super::wire::{Delivery, Response};

/// Rules kept at most.
const MOST: usize = 256;

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Names of calls, or `*`.
    pub(super) on: Vec<String>,
    /// How many matching calls pass before.
    #[serde(default)]
    pub(super) skip: u32,
    /// How often it fires; for ever, without.
    #[serde(default)]
    pub(super) times: Option<u32>,
    /// With what probability, drawn from the world's seed.
    #[serde(default)]
    pub(super) probability: Option<f64>,
    /// What happens.
    pub(super) fault: Fault,
}

/// What the body of a refusal for too many calls looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TooMany {
    /// JSON with `detail`.
    Detail,
    /// Plain text.
    Text,
    /// The daily quota of searches.
    Quota,
}

/// What happens at a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Fault {
    /// The connection is closed without an answer, with or without the effect.
    LostReply { effect: bool },
    /// Nothing comes for so long, then the connection is closed.
    Timeout { effect: bool, ms: u64 },
    /// The answer comes late.
    Slow { ms: u64 },
    /// 429.
    TooMany { body: TooMany },
    /// A status, as JSON or as a proxy's HTML page.
    Status {
        code: u16,
        #[serde(default)]
        html: bool,
        #[serde(default)]
        effect: bool,
    },
    /// Any body at all instead of the answer.
    Body {
        code: u16,
        content_type: String,
        text: String,
        /// The text so many times.
        #[serde(default)]
        repeat: Option<u32>,
    },
    /// The offer of a create is gone: 404 or 410.
    OfferGone { code: u16 },
    /// A create makes a stopped instance and reports an error that names it.
    ContractInError,
    /// A create costs more than was offered.
    Dearer { factor: f64 },
    /// A create gets this fate.
    Fate { fate: Fate },
    /// A list without a row that says so with success.
    EmptyList,
    /// A list that lacks its last rows and does not say so.
    PartialList { lacks: usize },
    /// Rows without a status.
    NullStatus,
}

/// What becomes of an instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Fate {
    /// It runs until it is stopped.
    #[default]
    Good,
    /// The status stays null.
    StaysNull,
    /// It stays in loading.
    StuckLoading,
    /// It never starts, and the message says why.
    StartupFailure { message: String },
    /// This status after it ran for so long.
    Becomes { status: Status, after_ms: u64 },
    /// Outbid after it ran for so long; back by itself where `for_ms` is set.
    Outbid {
        after_ms: u64,
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// In no list and not shown until then.
    Late { ms: u64 },
}

impl Fate {
    /// What follows once it runs.
    pub(super) fn once_running(&self) -> Option<(u64, Change)> {
        match self {
            Self::Becomes { status, after_ms } => {
                Some((*after_ms, Change::Become { status: *status, message: None }))
            }
            Self::Outbid { after_ms, for_ms } => Some((*after_ms, Change::Outbid { for_ms: *for_ms })),
            _ => None,
        }
    }
}

/// The rules in force.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Faults {
    pub(super) rules: Vec<Rule>,
    /// How often one fired.
    pub(super) fired: u64,
}

impl Faults {
    /// Adds one.
    pub(super) fn add(&mut self, rule: Rule) -> Result<(), String> {
        if self.rules.len() == MOST {
            return Err(format!("there are {MOST} rules already"));
        }
        if rule.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err("a probability is between 0 and 1".to_owned());
        }
        self.rules.push(rule);
        Ok(())
    }

    /// The fault of this call, if any; a rule that is used up is dropped.
    pub(super) fn draw(&mut self, op: &str, random: &mut fastrand::Rng) -> Option<Fault> {
        for at in 0..self.rules.len() {
            let rule = self.rules.get_mut(at)?;
            if !rule.on.iter().any(|on| on == "*" || on == op) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.probability.is_some_and(|p| random.f64() >= p) {
                continue;
            }
            let fault = rule.fault.clone();
            if let Some(times) = &mut rule.times {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    self.rules.remove(at);
                }
            }
            self.fired += 1;
            return Some(fault);
        }
        None
    }
}

impl Fault {
    /// Its name in the journal.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::LostReply { .. } => "lost_reply",
            Self::Timeout { .. } => "timeout",
            Self::Slow { .. } => "slow",
            Self::TooMany { .. } => "too_many",
            Self::Status { .. } => "status",
            Self::Body { .. } => "body",
            Self::OfferGone { .. } => "offer_gone",
            Self::ContractInError => "contract_in_error",
            Self::Dearer { .. } => "dearer",
            Self::Fate { .. } => "fate",
            Self::EmptyList => "empty_list",
            Self::PartialList { .. } => "partial_list",
            Self::NullStatus => "null_status",
        }
    }

    /// Whether the call has its effect all the same.
    pub(super) const fn has_effect(&self) -> bool {
        match self {
            Self::LostReply { effect } | Self::Timeout { effect, .. } | Self::Status { effect, .. } => {
                *effect
            }
            Self::TooMany { .. } | Self::Body { .. } | Self::OfferGone { .. } => false,
            Self::Slow { .. }
            | Self::ContractInError
            | Self::Dearer { .. }
            | Self::Fate { .. }
            | Self::EmptyList
            | Self::PartialList { .. }
            | Self::NullStatus => true,
        }
    }

    /// What is answered in place of, or made from, the true answer.
    pub(super) fn answer(&self, now: u64, answer: Response) -> Response {
        match self {
            Self::LostReply { .. } => Response { delivery: Delivery::Close { after_ms: 0 }, ..answer },
            Self::Timeout { ms, .. } => Response { delivery: Delivery::Close { after_ms: *ms }, ..answer },
            Self::Slow { ms } => Response { delivery: Delivery::Late { after_ms: *ms }, ..answer },
            Self::TooMany { body } => too_many(*body, now),
            Self::Status { code, html: true, .. } => Response::text(
                *code,
                "text/html",
                format!("<html><head><title>{code}</title></head><body><h1>{code} error</h1></body></html>"),
            ),
            Self::Status { code, .. } => {
                Response::json(*code, &json!({"success": false, "error": "server_error", "msg": "injected"}))
            }
            Self::Body { code, content_type, text, repeat } => {
                let times = repeat.unwrap_or(1).min(1 << 24) as usize;
                Response::text(*code, content_type, text.repeat(times.min((64 << 20) / text.len().max(1))))
            }
            Self::OfferGone { code } => Response::json(
                *code,
                &json!({"success": false, "error": "no_such_ask",
                    "msg": format!("error {code}/3603: no_such_ask  Instance type by id is not available.")}),
            ),
            Self::EmptyList => rows(answer, Vec::clear),
            Self::PartialList { lacks } => {
                rows(answer, |rows| rows.truncate(rows.len().saturating_sub(*lacks)))
            }
            Self::NullStatus => rows(answer, |rows| {
                for row in rows {
                    row["actual_status"] = Value::Null;
                }
            }),
            Self::ContractInError | Self::Dearer { .. } | Self::Fate { .. } => answer,
        }
    }
}

/// Changes the rows of an answer and what it says of their number.
fn rows(answer: Response, change: impl FnOnce(&mut Vec<Value>)) -> Response {
    let Ok(mut value) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
    let offers = value.get("offers").is_some();
    let key = if offers { "offers" } else { "instances" };
    let Some(Value::Array(list)) = value.get_mut(key) else {
        // A single row.
        if let Some(row) = value.get_mut(key).filter(|row| row.is_object()) {
            let mut one = vec![row.take()];
            change(&mut one);
            value[key] = one.pop().unwrap_or(Value::Null);
            return Response::json(answer.status, &value);
        }
        return answer;
    };
    change(list);
    let left = list.len();
    if value.get("instances_found").is_some() {
        value["instances_found"] = left.into();
        value["total_instances"] = left.into();
        value["next_token"] = Value::Null;
    }
    Response::json(answer.status, &value)
}

/// 429 in each of its shapes.
fn too_many(body: TooMany, now: u64) -> Response {
    match body {
        TooMany::Detail => {
            Response::json(429, &json!({"detail": "API requests too frequent endpoint threshold=4.5"}))
        }
        TooMany::Text => {
            Response::text(429, "text/plain", "API requests too frequent: endpoint threshold=4.5".to_owned())
        }
        TooMany::Quota => quota(now),
    }
}

/// The daily quota of searches is used up.
pub(super) fn quota(now: u64) -> Response {
    let midnight = (now / 86_400_000 + 1) * 86_400;
    let mut response = Response::json(
        429,
        &json!({"success": false, "error": "search_quota_exceeded", "msg": "Daily search quota exceeded"}),
    );
    response.headers.push(("X-RateLimit-Reset", midnight.to_string()));
    response
}
