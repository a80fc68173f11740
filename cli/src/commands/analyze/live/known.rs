//! What the controller knows of a run beside its points: why it failed, and what
//! an hour of its machine costs. It lies in the copy, so that whoever reads that
//! tells it without asking; it goes with the copy and decides nothing. What cannot
//! be read is not known.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use controller::capsule::Capsule;
use proto::v1;
use serde::{Deserialize, Serialize};

use super::super::ending::LastError;
use crate::client::Client;
use crate::report::is_released;

/// No file of points, which the readers would take for one.
const FILE: &str = "outlast-known.json";
/// Bytes of it that are read.
const MOST: u64 = 64 << 10;

/// What is known.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Why it failed, as `outlast why` has it.
    #[serde(default)]
    pub(crate) why: Option<LastError>,
    /// US dollars an hour of the machine that it runs on now.
    #[serde(default)]
    pub(crate) usd_per_hour: Option<f64>,
}

impl Known {
    /// What the copy in a directory holds.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut text = String::new();
        let read = File::open(dir.join(FILE)).and_then(|file| file.take(MOST).read_to_string(&mut text));
        read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// What the controller knows now. Why it failed is asked once: that stays.
    pub(super) async fn ask(client: &Client, detail: &v1::RunDetail, dir: &Path) -> Self {
        let Some(run) = &detail.run else { return Self::default() };
        let mut known = Self { why: None, usd_per_hour: hourly(detail) };
        if run.state == "FAILED" {
            known.why = Self::read(dir).why;
            if known.why.is_none() {
                let ask = v1::WhyRequest { run: run.id.clone(), attempt: 0 };
                // One that has had no attempt has no cause; the rest is told without.
                let reply = client.operator.clone().why(ask).await.ok();
                known.why = reply.and_then(|reply| cause(&reply.into_inner().capsule_json));
            }
        }
        known
    }

    /// Puts it into the copy.
    pub(super) fn write(&self, dir: &Path) -> std::io::Result<()> {
        super::whole(dir, FILE, &serde_json::to_string(self)?)
    }
}

fn cause(capsule: &str) -> Option<LastError> {
    LastError::told(&serde_json::from_str::<Capsule>(capsule).ok()?.verdict)
}

/// What an hour of its machine costs while it goes on; `None` where nobody bills.
pub(crate) fn hourly(detail: &v1::RunDetail) -> Option<f64> {
    let run = detail.run.as_ref().filter(|run| run.ended_ms == 0)?;
    let machine =
        detail.machines.iter().find(|machine| machine.id == run.machine && !is_released(machine))?;
    Some(machine.usd_per_hour).filter(|usd| usd.is_finite() && *usd > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machine_of_a_run_that_goes_on_costs_more() {
        let of = |state: &str, ended_ms, usd_per_hour| {
            let run = v1::RunView { machine: "m1".into(), ended_ms, ..v1::RunView::default() };
            let machine = |id: &str, usd_per_hour| v1::MachineView {
                id: id.into(),
                state: state.into(),
                usd_per_hour,
                ..v1::MachineView::default()
            };
            let machines = vec![machine("m0", 9.0), machine("m1", usd_per_hour)];
            hourly(&v1::RunDetail { run: Some(run), machines, ..v1::RunDetail::default() })
        };
        assert_eq!(of("READY", 0, 3.6), Some(3.6));
        assert_eq!((of("READY", 7, 3.6), of("DESTROYED", 0, 3.6), of("READY", 0, 0.0)), (None, None, None));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_broken_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Known::read(dir.path()), Known::default());
        let why = LastError { line: "KeyError: 'x'".into(), cause: None, next: Some("mend it".into()) };
        let known = Known { why: Some(why), usd_per_hour: Some(0.5) };
        known.write(dir.path()).unwrap();
        assert_eq!(Known::read(dir.path()), known);
        std::fs::write(dir.path().join(FILE), "{\"why\": [").unwrap();
        assert_eq!(Known::read(dir.path()), Known::default());
    }
}
