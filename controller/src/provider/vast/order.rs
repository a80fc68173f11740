//! Orders a machine: looks for offers and waits for its turn beforehand, then
//! orders one of them, once. What was ordered and not answered is unknown.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::Duration;

use lifecycle::meter::Rates;
use lifecycle::spec::Market;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{self, Failure, Kind, rejected};
use super::http::Call;
use super::instance::One;
use super::offer::{self, Offer};
use super::pace::Op;
use super::{BOOTS_LONGER_MS, VastProvider, unclear};
use crate::provider::{Capabilities, CreateOutcome, CreateRequest, DestroyOutcome, Provider as _};

/// Offers tried for one machine: each is used once and may be gone.
const TRIES: usize = 5;
/// The image that is started where none is named.
pub(super) const IMAGE: &str = "pytorch/pytorch:latest";
/// Outbid machines are stopped without a notice and come back by themselves;
/// their disk bills until they are destroyed. Each container has its own key.
pub(super) const CAPABILITIES: Capabilities = Capabilities {
    interruptible: true,
    resumes_itself: true,
    billed_while_stopped: true,
    notice_s: 0,
    snapshot: false,
    clone: false,
    self_destroy_key: true,
    idempotency_token: false,
};
const ONSTART: &str = include_str!("../../../../cloud-init/vast-onstart.sh.tmpl");
/// Offers that were found so long ago are looked for again.
const STILL_GOOD: Duration = Duration::from_secs(60);
/// A host that refused an order is left out for so long.
const BARRED: Duration = Duration::from_hours(24);
/// Hosts left out at most.
const BARRED_MAX: usize = 4_096;
/// Machines that may be about to be ordered at once.
const PREPARED: usize = 256;

impl VastProvider {
    /// Finds offers and waits for the turn of the order itself. All that takes
    /// time is done here: a controller that ends meanwhile has ordered nothing.
    /// What the dearest of the offers that are tried costs.
    ///
    /// # Errors
    /// The rejection.
    pub(super) async fn seek(&self, request: &CreateRequest) -> Result<Option<Rates>, CreateOutcome> {
        self.register_key().await.map_err(rejected)?;
        let (spec, most) = (&request.machine, request.max_usd_per_hour);
        let mut offers = self.search(spec, most, &request.appraisal).await.map_err(rejected)?;
        let found = offers.len();
        {
            let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
            barred.retain(|_, at| at.elapsed() < BARRED);
            let barred = |host: u64| barred.contains_key(&host);
            offers.retain(|offer| {
                !request.avoid.contains(&offer.machine.to_string()) && !barred(offer.machine)
            });
        }
        if offers.is_empty() {
            let mut text = format!("Vast.ai has no offer for {}", offer::wish(spec, most));
            if found > 0 {
                let _ = write!(text, " besides {found} on hosts that failed before");
            }
            return Err(rejected(gone(text)));
        }
        let rates = offers.iter().take(TRIES).map(|offer| offer::rates(offer, spec.market, most));
        let dearest = rates.reduce(|a, b| a.dearer(&b));
        self.http.turn(Op::Create).await.map_err(rejected)?;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.retain(|_, (at, _)| at.elapsed() < STILL_GOOD);
        if prepared.len() < PREPARED {
            prepared.insert(request.machine_id.clone(), (Instant::now(), offers));
        }
        Ok(dearest)
    }

    fn take_prepared(&self, machine: &str) -> Option<Vec<Offer>> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.remove(machine).filter(|(at, _)| at.elapsed() < STILL_GOOD).map(|(_, offers)| offers)
    }

    /// Orders the best of the offers that is still there.
    pub(super) async fn rent(&self, request: &CreateRequest) -> CreateOutcome {
        let mut prepared = self.take_prepared(&request.machine_id);
        if prepared.is_none() {
            if let Err(outcome) = self.seek(request).await {
                return outcome;
            }
            prepared = self.take_prepared(&request.machine_id);
        }
        let mut last = gone("too many machines are being ordered at once".to_owned());
        let mut refused = Refused::default();
        for (n, offer) in prepared.unwrap_or_default().iter().take(TRIES).enumerate() {
            // The turn of the first was taken beforehand.
            if n > 0
                && let Err(failure) = self.http.turn(Op::Create).await
            {
                return rejected(failure);
            }
            match self.order_one(request, offer).await {
                Err(failure) => {
                    let again = failure.kind == Kind::Invalid && failure.text == last.text;
                    if let Some(host) = refused.by(offer, &failure) {
                        self.bar([host]);
                    }
                    last = failure;
                    // What two hosts refuse in the same words, all will.
                    if again {
                        break;
                    }
                }
                Ok(outcome) => {
                    if !matches!(outcome, CreateOutcome::Rejected { .. }) {
                        // Others take what these refused.
                        self.bar(refused.hosts);
                    }
                    return outcome;
                }
            }
        }
        // The price that was asked is no more: the next search finds another.
        let moved = last.kind == Kind::Invalid && last.text.contains("price");
        rejected(if moved { gone(last.text) } else { last })
    }

    fn bar(&self, hosts: impl IntoIterator<Item = u64>) {
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        for host in hosts {
            if barred.len() < BARRED_MAX {
                barred.insert(host, Instant::now());
            }
        }
    }

    /// # Errors
    /// Why this offer was none, where another one may be.
    async fn order_one(&self, request: &CreateRequest, offer: &Offer) -> Result<CreateOutcome, Failure> {
        let order = self.order(request, offer);
        let path = format!("/api/v0/asks/{}/", offer.ask);
        let call = Call { op: Op::Create, method: Method::PUT, path, body: Some(&order) };
        let answer = match self.key() {
            Ok(key) => self.http.now(&key, &call).await,
            Err(failure) => Err(failure),
        };
        let failure = match answer {
            Ok(answer) => {
                let Some(id) = answer.get("new_contract").and_then(answer::id) else {
                    return Ok(CreateOutcome::Unknown { reason: unclear("the order").text });
                };
                return Ok(self.believed(id, &request.label, offer).await);
            }
            Err(failure) => failure,
        };
        if let Some(contract) = failure.contract
            && let Err(reason) = self.undo(contract, &request.label).await
        {
            return Ok(CreateOutcome::Unknown { reason });
        }
        match failure.kind {
            Kind::OfferGone => Err(failure),
            // A refusal of this host, or of this price.
            Kind::Forbidden | Kind::Invalid if failure.contract.is_none() => Err(failure),
            // A machine named in the answer is gone again.
            Kind::Unknown if failure.contract.is_none() => {
                Ok(CreateOutcome::Unknown { reason: failure.text })
            }
            _ => Ok(rejected(failure)),
        }
    }

    /// A number in an answer may be anybody's machine: it is ours once it is
    /// seen to carry the label. Else the right one is looked for by that.
    async fn believed(&self, id: u64, label: &str, offer: &Offer) -> CreateOutcome {
        let reason = match self.show(id).await {
            Ok(One::Is(row)) if row.label == label => {
                self.note_host(id, offer);
                return CreateOutcome::Created { instance: id.to_string() };
            }
            Ok(One::Is(_)) => format!("the order's answer named machine {id}, which is labelled otherwise"),
            Ok(One::Gone) => format!("machine {id} was ordered and is not shown yet"),
            Ok(One::Unclear) => unclear("the question for one machine").text,
            Err(failure) => failure.text,
        };
        CreateOutcome::Unknown { reason }
    }

    fn order(&self, request: &CreateRequest, offer: &Offer) -> Value {
        let spec = &request.machine;
        let deadline = self.config.boot_deadline + Duration::from_millis(BOOTS_LONGER_MS);
        let deadline = deadline.as_secs().to_string();
        let onstart = ONSTART
            .replace("@{MACHINE}", &request.machine_id)
            .replace("@{DEADLINE}", &deadline)
            .replace("@{API}", &self.base);
        let price =
            (spec.market == Market::Interruptible).then(|| offer::bid(offer, request.max_usd_per_hour));
        json!({
            "client_id": "me",
            "image": if spec.image.is_empty() { IMAGE } else { &spec.image },
            "env": {},
            "price": price,
            "disk": offer::disk_gb(spec),
            "label": request.label,
            "onstart": onstart,
            "force": false,
            // Without it a stopped machine is left behind that bills its disk.
            "cancel_unavail": true,
            "target_state": "running",
            "runtype": "ssh_direc ssh_proxy",
        })
    }

    /// A machine that was made though the call failed is not wanted.
    async fn undo(&self, contract: u64, label: &str) -> Result<(), String> {
        // A number in an answer may be anybody's machine.
        match self.show(contract).await {
            Ok(One::Is(row)) if row.label == label => {}
            Ok(One::Gone) => return Ok(()),
            _ => return Err(format!("machine {contract} was named in an error and cannot be told for ours")),
        }
        match self.destroy(&contract.to_string()).await {
            DestroyOutcome::Accepted | DestroyOutcome::Absent => Ok(()),
            DestroyOutcome::Unknown(why) => {
                Err(format!("machine {contract} was made and may be there: {why}"))
            }
        }
    }
}

/// Hosts that refused an order that may be taken elsewhere.
#[derive(Default)]
struct Refused {
    hosts: Vec<u64>,
}

impl Refused {
    /// Notes a refusal. The host, where the vendor says that it is about that
    /// alone; else it may be about the key.
    fn by(&mut self, offer: &Offer, failure: &Failure) -> Option<u64> {
        if failure.kind != Kind::Forbidden || offer.machine == 0 {
            return None;
        }
        let said = failure.text.to_lowercase();
        if ["own machine", "blacklist"].iter().any(|words| said.contains(words)) {
            return Some(offer.machine);
        }
        self.hosts.push(offer.machine);
        None
    }
}

/// No offer is left.
fn gone(text: String) -> Failure {
    Failure { kind: Kind::OfferGone, text, contract: None }
}
