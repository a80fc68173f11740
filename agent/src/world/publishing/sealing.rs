//! What an attempt's trees are sealed with. The keys come with the assignment,
//! are in this process's memory alone, and come again after it was started
//! again; until then nothing is published, and never anything in the clear.

use std::sync::Arc;

use artifacts::seal::{ProjectSecret, PublicKey, Sealing};
use proto::v1;

use super::Publishing;

/// How a controller says that a tree in the clear is not taken: the attempt was
/// assigned when its run was not to be sealed, and now it is.
const TO_BE_SEALED: &str = "the run's trees are to be sealed";

impl Publishing {
    /// Whether a refusal is about nothing but that: what was stored is published
    /// again, sealed, and nothing more in the clear, whatever the assignment says.
    pub(super) fn seals_now(&self, attempt: &str, why: &str) -> bool {
        let now = why.starts_with(TO_BE_SEALED);
        if now {
            self.tell(attempt, |told| told.must_seal = true);
        }
        now
    }

    /// Takes the keys of an attempt into memory, and with them a change of
    /// recipients.
    pub fn entrust(&self, work: &v1::Work) {
        let Some(given) = &work.sealing else {
            if !work.sealed {
                // Whoever assigns it says that it is not to be sealed, or no more.
                self.tell(&work.attempt_id, |told| told.must_seal = false);
            }
            return;
        };
        match read(given) {
            Ok(sealing) => self.tell(&work.attempt_id, |told| told.sealing = Some(Arc::new(sealing))),
            Err(why) => tracing::error!(why, "checkpoints are to be sealed and cannot be"),
        }
    }

    /// What seals; `None`: this attempt's trees are not sealed.
    pub(super) fn sealing(&self, work: &v1::Work) -> Result<Option<Arc<Sealing>>, String> {
        match self.tell(&work.attempt_id, |told| (told.sealing.clone(), told.must_seal)) {
            (None, must) if must || work.sealed => {
                Err("checkpoints are sealed, and the keys come with the connection".into())
            }
            (known, _) => Ok(known),
        }
    }
}

fn read(given: &v1::Sealing) -> Result<Sealing, String> {
    let secret = ProjectSecret::try_from(given.secret.as_slice()).map_err(|error| error.to_string())?;
    let recipients = given.recipients.iter().map(|key| key.as_slice().try_into().map(PublicKey::from_bytes));
    let recipients: Result<Vec<PublicKey>, _> = recipients.collect();
    let recipients = recipients.map_err(|_| "the controller named a recipient that is none")?;
    Sealing::new(&secret, &recipients).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_what_is_to_be_sealed_is_not_published() {
        let publishing = Publishing::default();
        assert!(publishing.sealing(&v1::Work::default()).unwrap().is_none());
        let work = |sealing| v1::Work { sealed: true, sealing, ..v1::Work::default() };
        let given = |secret: usize, recipients: &[usize]| v1::Sealing {
            secret: vec![1; secret],
            recipients: recipients.iter().map(|len| vec![2; *len]).collect(),
        };
        for bad in [given(31, &[32]), given(32, &[]), given(32, &[31]), given(0, &[32, 32])] {
            publishing.entrust(&work(Some(bad)));
            assert!(publishing.sealing(&work(None)).unwrap_err().contains("connection"));
        }
        publishing.entrust(&work(Some(given(32, &[32, 32]))));
        assert!(publishing.sealing(&work(None)).unwrap().is_some());
        // A later assignment without them, as one that was read from the disk.
        publishing.entrust(&work(None));
        assert!(publishing.sealing(&work(None)).unwrap().is_some());
        publishing.forget("");
        assert!(publishing.sealing(&work(None)).is_err());
        // Refused in the clear, and later not to be sealed after all.
        assert!(!publishing.seals_now("", "the manifest is too large"));
        assert!(publishing.sealing(&v1::Work::default()).unwrap().is_none());
        assert!(publishing.seals_now("", "the run's trees are to be sealed, and this one is not"));
        publishing.entrust(&work(None));
        assert!(publishing.sealing(&v1::Work::default()).is_err());
        publishing.entrust(&v1::Work::default());
        assert!(publishing.sealing(&v1::Work::default()).unwrap().is_none());
    }
}
