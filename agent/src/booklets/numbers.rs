//! Which numbers of a generation may still be used. They are written down
//! before they are used: an agent that is started again begins above all of
//! them, without asking anybody. A few are lost with each start, and none is
//! ever used for two different objects.

use artifacts::ObjectKey;
use artifacts::key::ObjectClass;
use serde::{Deserialize, Serialize};

/// Packs that are written down at once: they go out side by side.
const AHEAD: u64 = 8;

/// The first numbers that were never used, as they are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Numbers {
    pub(super) generation: u64,
    pub(super) pack: u64,
    pub(super) manifest: u64,
}

impl Numbers {
    /// What must be written down before this object is put; `None`: what is
    /// written covers it, or it has no number of this generation.
    pub(super) fn before(self, key: &ObjectKey) -> Option<Self> {
        if key.generation() != Some(self.generation) {
            return None;
        }
        match key.seq()? {
            (ObjectClass::Pack, seq) if seq >= self.pack => {
                Some(Self { pack: seq.saturating_add(AHEAD), ..self })
            }
            (ObjectClass::Manifest, seq) if seq >= self.manifest => {
                Some(Self { manifest: seq.saturating_add(1), ..self })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whenever the agent dies, what it finds written is above all it used.
        #[test]
        fn no_number_is_used_twice(puts in proptest::collection::vec((any::<bool>(), 0_u64..3, any::<bool>()), 1..200)) {
            let mut written = Numbers { generation: 2, pack: 1, manifest: 1 };
            let (mut pack, mut manifest) = (written.pack, written.manifest);
            let mut used = std::collections::BTreeSet::new();
            for (is_pack, skipped, dies) in puts {
                let key = if is_pack {
                    pack += skipped + 1;
                    ObjectKey::pack("run", 2, pack - 1)
                } else {
                    manifest += skipped + 1;
                    ObjectKey::manifest("run", 2, manifest - 1)
                }
                .unwrap();
                if let Some(next) = written.before(&key) {
                    written = next;
                }
                prop_assert_eq!(written.before(&key), None, "it is covered once it is written");
                prop_assert!(used.insert(key));
                if dies {
                    (pack, manifest) = (written.pack, written.manifest);
                }
            }
        }
    }

    #[test]
    fn another_generations_numbers_are_not_its_own() {
        let numbers = Numbers { generation: 2, pack: 1, manifest: 1 };
        assert_eq!(numbers.before(&ObjectKey::pack("run", 3, 9).unwrap()), None);
    }
}
