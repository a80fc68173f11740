//! Machines rented from Vast.ai's hosts. There is no token that makes a second
//! create harmless: a machine is found again by its label alone, so an answer
//! that was lost is told as unknown and never asked for again.
//!
//! The host's root can read everything on such a machine: nothing is put there
//! that another run needs. The account's key never leaves this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use lifecycle::choice::Appraisal;
use lifecycle::meter::Rates;
use lifecycle::spec::MachineSpec;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{
    Charges, CreateOutcome, CreateRequest, DestroyOutcome, HostKeys, Idempotency, Instance, InstanceState,
    Listing, NoOffers, Owner, Presence, Provider, Reach, RouteError, SshAddress, SshRoute, Stopped, Terms,
};

mod account;
mod answer;
mod charges;
mod filter;
mod http;
mod identity;
mod instance;
mod key;
mod offer;
mod order;
mod pace;

pub use account::Standing;
use answer::{Failure, Kind};
use http::{Call, Http, escaped};
use instance::{One, Row};
use offer::Offer;
use pace::Op;

/// The vendor's address.
const BASE: &str = "https://console.vast.ai";
/// Pages of a list read at most: 25 machines each.
const PAGES: usize = 400;
/// Where everything of ours lies on a machine, below the home of its user.
const ROOT: &str = ".outlast";
/// Images of many gigabytes come over a host's own link.
const BOOTS_LONGER_MS: u64 = 600_000;
/// What was said of a machine so long ago is still good for its price: a list
/// comes each minute and says it of all.
const TERMS: Duration = Duration::from_secs(45);
/// And so long where the vendor does not answer: a machine whose address is
/// known is not lost because of that.
const KEPT: Duration = Duration::from_hours(6);
/// An address that worked is asked for anew after this.
const ADDRESS: Duration = Duration::from_secs(30);
/// Machines of which the host is remembered.
const HOSTS_MAX: usize = 4_096;
const PATIENCE: Duration = Duration::from_secs(60);

/// What a [`VastProvider`] needs to know.
#[derive(Debug, Clone)]
pub struct VastConfig {
    /// The vendor's address; `None`: `VAST_URL`, else its own.
    pub url: Option<String>,
    /// Where this installation keeps its key pair and the machines' host keys.
    pub keys: PathBuf,
    /// How long a machine has from its creation until an agent is there; after
    /// that it ends itself.
    pub boot_deadline: Duration,
    /// The vendor's least intervals between calls, in percent of those that it
    /// publishes: 100, but for a stand-in that has none.
    pub pace_percent: u32,
}

/// A [`Provider`] of machines at Vast.ai.
#[derive(Debug)]
pub struct VastProvider {
    http: Http,
    key: key::Places,
    config: VastConfig,
    base: String,
    /// Why the address cannot be used.
    unusable: Option<String>,
    /// What was last said of each machine, for questions that need not be
    /// answered to the second.
    seen: std::sync::Mutex<BTreeMap<u64, (Instant, Row)>>,
    /// The public key that the account is known to have.
    registered: Mutex<Option<String>>,
    /// Offers found for machines that are about to be ordered.
    prepared: std::sync::Mutex<BTreeMap<String, (Instant, Vec<Offer>)>>,
    /// On which physical machines those lie that were ordered here, and with
    /// which GPUs they were offered.
    hosts: std::sync::Mutex<BTreeMap<u64, (u64, String)>>,
    /// Physical machines that refused an order, and when.
    barred: std::sync::Mutex<BTreeMap<u64, Instant>>,
}

impl VastProvider {
    /// For the account whose key the environment or the vendor's own files
    /// hold. Nothing is asked until it is needed.
    ///
    /// # Errors
    /// Where there is no TLS to be had.
    pub fn new(config: VastConfig, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let base = config.url.clone().or_else(|| env("VAST_URL")).unwrap_or_else(|| BASE.to_owned());
        let base = base.trim_end_matches('/').to_owned();
        // A key in the clear would be anybody's. Who has no use for Vast.ai is
        // not troubled with it.
        let here = reqwest::Url::parse(&base).is_ok_and(|url| {
            url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
        });
        let safe = here || base.starts_with("https://") && reqwest::Url::parse(&base).is_ok();
        // Only a stand-in on this computer may be asked faster than the vendor.
        let percent = env("VAST_PACE_PERCENT").and_then(|text| text.parse::<u32>().ok()).filter(|_| here);
        let pace_percent = percent.unwrap_or(config.pace_percent).min(config.pace_percent);
        let unusable = (!safe).then(|| {
            format!("the address of Vast.ai must begin with https://, or name this computer: `{base}`")
        });
        Ok(Self {
            http: Http::new(&base, PATIENCE, pace_percent)?,
            key: key::Places::of(env),
            config,
            base,
            unusable,
            seen: std::sync::Mutex::default(),
            registered: Mutex::new(None),
            prepared: std::sync::Mutex::default(),
            hosts: std::sync::Mutex::default(),
            barred: std::sync::Mutex::default(),
        })
    }

    fn key(&self) -> Result<key::Key, Failure> {
        let key = self.unusable.clone().map_or_else(|| self.key.key(), Err);
        key.map_err(|text| Failure { kind: Kind::Key, text, contract: None })
    }

    async fn read(&self, op: Op, path: String) -> Result<Value, Failure> {
        self.http.read(&self.key()?, &Call::get(op, path)).await
    }

    async fn write(&self, op: Op, method: Method, path: String, body: &Value) -> Result<Value, Failure> {
        self.http.once(&self.key()?, &Call { op, method, path, body: Some(body) }).await
    }

    /// The machines to be had for `spec`, the best first.
    async fn search(
        &self,
        spec: &MachineSpec,
        most: Option<f64>,
        known: &Appraisal,
    ) -> Result<Vec<Offer>, Failure> {
        let question = offer::question(spec, most);
        // A search changes nothing: it may be repeated though it is a POST.
        let call = Call {
            op: Op::Search,
            method: Method::POST,
            path: "/api/v0/bundles/".into(),
            body: Some(&question),
        };
        let answer = self.http.read(&self.key()?, &call).await?;
        offer::read(&answer, spec, most, known).ok_or_else(|| unclear("the search"))
    }

    async fn show(&self, id: u64) -> Result<One, Failure> {
        let one = match self.read(Op::Show, format!("/api/v0/instances/{id}/?owner=me")).await {
            Ok(answer) => instance::one(&answer, id),
            Err(Failure { kind: Kind::NotFound, .. }) => One::Gone,
            Err(failure) => return Err(failure),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, (at, _)| at.elapsed() < KEPT);
        match &one {
            One::Is(row) => drop(seen.insert(id, (Instant::now(), (**row).clone()))),
            One::Gone => drop(seen.remove(&id)),
            One::Unclear => {}
        }
        Ok(one)
    }

    /// A list says of every machine what a question for it would: of ours, and
    /// of one that was taken for ours.
    fn remember(&self, rows: &[Row], label_prefix: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if !row.label.starts_with(label_prefix) && !seen.contains_key(&row.id) {
                continue;
            }
            seen.insert(row.id, (Instant::now(), row.clone()));
        }
    }

    /// As [`VastProvider::show`], or what was said a moment ago: calls are
    /// counted, and three parts of the program ask for the same machine.
    async fn show_lately(&self, id: u64, age: Duration) -> Result<One, Failure> {
        match self.known(id, age) {
            Some(row) => Ok(One::Is(Box::new(row))),
            None => self.show(id).await,
        }
    }

    fn known(&self, id: u64, age: Duration) -> Option<Row> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&id).filter(|(at, _)| at.elapsed() < age).map(|(_, row)| row.clone())
    }

    /// All machines of the account, and whether that is all.
    async fn all(&self) -> Result<(Vec<Row>, bool), Failure> {
        let (mut rows, mut torn, mut total) = (Vec::new(), false, None);
        let mut after = String::new();
        for _ in 0..PAGES {
            let order = r#"[{"col": "id", "dir": "asc"}]"#;
            let query =
                [("select_filters", "{}"), ("order_by", order), ("limit", "25"), ("after_token", &after)];
            let query: Vec<String> = query
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| format!("{name}={}", escaped(value)))
                .collect();
            let answer = self.read(Op::List, format!("/api/v1/instances/?{}", query.join("&"))).await?;
            let page = instance::page(&answer).ok_or_else(|| unclear("the list"))?;
            let empty = page.rows.is_empty();
            rows.extend(page.rows);
            torn |= page.torn;
            total = page.total.or(total);
            match page.next {
                // A token that leads nowhere must not be followed for ever.
                Some(next) if next != after && !empty => after = next,
                Some(_) => return Ok((rows, false)),
                None => {
                    let whole = instance::whole(&rows, total, torn);
                    return Ok((rows, whole));
                }
            }
        }
        Ok((rows, false))
    }

    /// The account knows this installation's public key: only then can a new
    /// machine be reached.
    async fn register_key(&self) -> Result<(), Failure> {
        let mut registered = self.registered.lock().await;
        let public = identity::public(&self.config.keys).await.map_err(|text| Failure {
            kind: Kind::Invalid,
            text,
            contract: None,
        })?;
        if registered.as_deref() == Some(public.as_str()) {
            return Ok(());
        }
        let known = self.read(Op::Keys, "/api/v0/ssh/".into()).await?;
        if !identity::knows(&known, &public) {
            self.write(Op::Keys, Method::POST, "/api/v0/ssh/".into(), &json!({ "ssh_key": public })).await?;
        }
        *registered = Some(public);
        Ok(())
    }

    /// The physical machine of a machine, and its GPUs.
    fn lies_on(&self, id: u64) -> Option<(u64, String)> {
        let ordered = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        ordered.or_else(|| self.known(id, KEPT).map(|row| (row.machine, row.gpu)))
    }

    fn note_host(&self, id: u64, offer: &Offer) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        while hosts.len() >= HOSTS_MAX {
            hosts.pop_first();
        }
        hosts.insert(id, (offer.machine, offer.gpu.clone()));
    }
}

fn unclear(what: &str) -> Failure {
    let text = format!("Vast.ai's answer to {what} is not what it documents");
    Failure { kind: Kind::Unknown, text, contract: None }
}

fn number(instance: &str) -> Option<u64> {
    instance.parse().ok().filter(|id| *id > 0)
}

#[async_trait]
impl Provider for VastProvider {
    fn name(&self) -> &'static str {
        "vast"
    }

    fn reach(&self) -> Reach {
        Reach::ControllerDials
    }

    fn owner(&self) -> Owner {
        Owner::Stranger
    }

    fn capabilities(&self) -> super::Capabilities {
        order::CAPABILITIES
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::LabelOnly
    }

    fn is_paid(&self) -> bool {
        true
    }

    fn usd_per_hour(&self) -> f64 {
        0.0
    }

    fn ready(&self) -> Result<(), String> {
        self.key().map(drop).map_err(|failure| failure.text)
    }

    async fn offers(
        &self,
        spec: &MachineSpec,
        most: Option<f64>,
        known: &Appraisal,
    ) -> Result<Vec<super::Offer>, NoOffers> {
        let found = self.search(spec, most, known).await.map_err(|failure| {
            let (trouble, _) = failure.kind.trouble();
            NoOffers { why: failure.text, trouble }
        })?;
        Ok(found.iter().map(|offer| offer::shown(offer, spec.market)).collect())
    }

    fn settle_window_ms(&self) -> u64 {
        // Counted from before the search: the order itself may be minutes later.
        300_000
    }

    fn boots_longer_ms(&self) -> u64 {
        BOOTS_LONGER_MS
    }

    fn chooses(&self) -> bool {
        true
    }

    async fn host(&self, instance: &str) -> Option<String> {
        let id = number(instance)?;
        let (machine, _) = self.lies_on(id)?;
        (machine > 0).then(|| machine.to_string())
    }

    async fn gpu(&self, instance: &str) -> Option<String> {
        Some(self.lies_on(number(instance)?)?.1).filter(|gpu| !gpu.is_empty())
    }

    async fn prepare(&self, request: &CreateRequest) -> Result<Option<Rates>, CreateOutcome> {
        self.seek(request).await
    }

    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        self.rent(request).await
    }

    async fn list(&self, label_prefix: &str) -> Listing {
        let (rows, whole) = match self.all().await {
            Ok(all) => all,
            Err(failure) => return Listing::Error(failure.text),
        };
        self.remember(&rows, label_prefix);
        let ours = rows.into_iter().filter(|row| row.label.starts_with(label_prefix));
        let mut found: Vec<Instance> =
            ours.map(|row| Instance { id: row.id.to_string(), label: row.label, state: row.state }).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        if whole { Listing::Complete(found) } else { Listing::Partial(found) }
    }

    async fn get(&self, instance: &str) -> Presence {
        let Some(id) = number(instance) else {
            return Presence::Error(format!("`{}` is no machine of Vast.ai", answer::printable(instance)));
        };
        match self.show(id).await {
            Ok(One::Is(row)) => Presence::Present(row.state),
            Ok(One::Gone) => Presence::Absent,
            Ok(One::Unclear) => Presence::Error(unclear("the question for one machine").text),
            Err(failure) => Presence::Error(failure.text),
        }
    }

    async fn terms(&self, instance: &str) -> Option<Terms> {
        let Ok(One::Is(row)) = self.show_lately(number(instance)?, TERMS).await else { return None };
        // Until it runs the vendor may name its disk's price alone.
        let rates = row.rates.filter(|_| row.state == InstanceState::Up);
        Some(Terms { rates, billed: row.billed, said: row.said })
    }

    async fn stopped(&self, instance: &str) -> Option<Stopped> {
        self.known(number(instance)?, TERMS)?.stopped
    }

    async fn go_on(&self, instance: &str, bid_usd: Option<f64>) -> Result<(), String> {
        let id = number(instance).ok_or("this is no machine of Vast.ai")?;
        let told = |failure: Failure| failure.text;
        if let Some(usd) = bid_usd {
            // Without a price the vendor would take whatever wins.
            let body = json!({ "client_id": "me", "price": usd });
            let path = format!("/api/v0/instances/bid_price/{id}/");
            self.write(Op::Bid, Method::PUT, path, &body).await.map_err(told)?;
        }
        let path = format!("/api/v0/instances/{id}/");
        let begun = self.write(Op::Start, Method::PUT, path, &json!({"state": "running"})).await;
        // What was said of it before is over.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        begun.map(drop).map_err(told)
    }

    async fn charges(&self, since_ms: u64, now_ms: u64) -> Result<Option<Charges>, String> {
        self.charged(since_ms / 1_000, now_ms / 1_000).await.map(Some).map_err(|failure| failure.text)
    }

    async fn route(&self, instance: &str) -> Result<SshRoute, RouteError> {
        let not_yet = |why: String| RouteError::NotYet(why);
        let id = number(instance).ok_or_else(|| RouteError::Never("this is no machine of Vast.ai".into()))?;
        let row = match self.show_lately(id, ADDRESS).await {
            Ok(One::Is(row)) => *row,
            Ok(One::Gone) => return Err(RouteError::Never("the machine is gone".into())),
            Ok(One::Unclear) => return Err(not_yet(unclear("the question for one machine").text)),
            Err(failure) => match self.known(id, KEPT) {
                Some(row) => row,
                None => return Err(not_yet(failure.text)),
            },
        };
        if row.state != InstanceState::Up {
            return Err(not_yet(row.said));
        }
        let at =
            |(host, port): (String, u16)| SshAddress { host, port: Some(port), user: Some("root".into()) };
        let (direct, proxy) = (row.direct.map(at), row.proxy.map(at));
        let (address, fallback) = match (direct, proxy) {
            (Some(direct), proxy) => (direct, proxy),
            // Twice the same: it is known for a proxy.
            (None, Some(proxy)) => (proxy.clone(), Some(proxy)),
            (None, None) => return Err(not_yet("it runs and has no address yet".into())),
        };
        Ok(SshRoute {
            address,
            fallback,
            identity: Some(identity::file(&self.config.keys)),
            host_keys: HostKeys::PinFirst {
                known_hosts: self.config.keys.join("vast_known_hosts"),
                name: format!("vast-{id}"),
            },
            options: vec!["IdentitiesOnly=yes".into()],
            base: ROOT.into(),
            env: BTreeMap::new(),
        })
    }

    async fn label(&self, instance: &str) -> Option<String> {
        match self.show_lately(number(instance)?, KEPT).await {
            Ok(One::Is(row)) => Some(row.label),
            _ => None,
        }
    }

    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        let Some(id) = number(instance) else {
            return DestroyOutcome::Unknown(format!(
                "`{}` is no machine of Vast.ai",
                answer::printable(instance)
            ));
        };
        let path = format!("/api/v0/instances/{id}/");
        match self.write(Op::Destroy, Method::DELETE, path, &json!({})).await {
            Ok(_) => DestroyOutcome::Accepted,
            Err(Failure { kind: Kind::NotFound, .. }) => DestroyOutcome::Absent,
            Err(failure) => DestroyOutcome::Unknown(failure.text),
        }
    }
}

#[cfg(test)]
mod tests;
