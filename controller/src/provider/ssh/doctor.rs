//! What `outlast doctor` says of each host: whether it answers, whether its key
//! is known, what is missing there, and which slots are free. Changes nothing.

use super::answer::Look;
use super::{Failure, SshConfig, SshHost, SshProvider, choose};
use crate::provider::ssh::link::LinkError;

/// What is known of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// Its name in the settings.
    pub name: String,
    /// What a person would type after `ssh`.
    pub destination: String,
    /// How many slots it has.
    pub slots: u32,
    /// How many of them are free; `None`: it gave no answer.
    pub free: Option<u32>,
    /// Who has the others, one line each.
    pub taken: Vec<String>,
    /// What is wrong, and what to do about it.
    pub problem: Option<(String, String)>,
}

/// Asks every host once.
pub async fn diagnose(config: SshConfig) -> Vec<HostReport> {
    let hub = config.hub.clone();
    let provider = SshProvider::new(config);
    let looks = Box::pin(provider.look_at_all("", true, std::time::Duration::ZERO)).await;
    looks.into_iter().map(|(host, look)| report(&host, look, &hub)).collect()
}

fn report(host: &SshHost, look: Result<Look, Failure>, hub: &str) -> HostReport {
    let mut report = HostReport {
        name: host.name.clone(),
        destination: host.destination(),
        slots: host.slots,
        free: None,
        taken: Vec::new(),
        problem: None,
    };
    let look = match look {
        Ok(look) => look,
        Err(failure) => {
            report.problem = Some(match &failure {
                Failure::Link(LinkError::Before(trouble)) => {
                    (trouble.problem(), trouble.cure(&report.destination))
                }
                Failure::Link(LinkError::Cut(why)) => (why.clone(), "try again".to_owned()),
                Failure::Refused(refusal) => {
                    (refusal.to_string(), format!("correct it there: ssh {}", report.destination))
                }
            });
            return report;
        }
    };
    report.free = Some(choose::free(host, &look));
    report.taken = look.slots.iter().map(|slot| choose::taker(&look, slot, hub)).collect();
    if let Err(why) = host.gpus.shares(host.slots, look.gpus) {
        report.problem = Some((why, "correct `slots` or `gpus` in providers.toml".to_owned()));
    }
    report
}
