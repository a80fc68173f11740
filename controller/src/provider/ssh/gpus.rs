//! Which GPUs a slot has: a host's GPUs in order, parted evenly. Two slots never
//! share one, and a slot never has none while others have some.

/// The GPUs of a host, as its settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    /// As many as `nvidia-smi -L` lists.
    Auto,
    /// These: indexes, or names such as `GPU-…` and `MIG-…`.
    These(Vec<String>),
}

impl Gpus {
    /// The value of `CUDA_VISIBLE_DEVICES` for each slot; `None`: every GPU of
    /// the host. `counted` is what the host counted, where it was asked.
    ///
    /// # Errors
    /// Where there are GPUs, and fewer than slots.
    pub(super) fn shares(&self, slots: u32, counted: Option<u32>) -> Result<Vec<Option<String>>, String> {
        let names: Vec<String> = match self {
            Self::Auto if slots == 1 => return Ok(vec![None]),
            Self::Auto => (0..counted.unwrap_or(0)).map(|index| index.to_string()).collect(),
            Self::These(names) => names.clone(),
        };
        let slots = slots as usize;
        if names.is_empty() {
            return Ok(vec![None; slots]);
        }
        if names.len() < slots {
            return Err(format!(
                "it has {} GPUs for {slots} slots: set fewer `slots`, or name what they get in `gpus`",
                names.len()
            ));
        }
        let first = |slot: usize| slot * names.len() / slots;
        Ok((0..slots).map(|slot| Some(names[first(slot)..first(slot + 1)].join(","))).collect())
    }

    /// Whether the host has to count them.
    pub(super) fn to_count(&self, slots: u32) -> bool {
        *self == Self::Auto && slots > 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gpus_are_parted_in_order() {
        let shares = |gpus: &Gpus, slots, counted| gpus.shares(slots, counted).unwrap();
        let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(shares(&Gpus::Auto, 2, Some(8)), some(&["0,1,2,3", "4,5,6,7"]));
        assert_eq!(shares(&Gpus::Auto, 2, Some(3)), some(&["0", "1,2"]));
        assert_eq!(shares(&Gpus::Auto, 1, Some(8)), [None]);
        assert_eq!(shares(&Gpus::Auto, 3, Some(0)), [None, None, None]);
        let named = Gpus::These(vec!["3".into(), "GPU-1f".into()]);
        assert_eq!(shares(&named, 2, None), some(&["3", "GPU-1f"]));
        assert_eq!(shares(&named, 1, None), some(&["3,GPU-1f"]));
        assert!(Gpus::Auto.shares(2, Some(1)).unwrap_err().contains("1 GPUs for 2 slots"));
    }

    proptest! {
        #[test]
        fn every_gpu_is_in_one_slot(slots in 1_u32..40, gpus in 1_u32..40) {
            let names: Vec<String> = (0..gpus).map(|n| n.to_string()).collect();
            match Gpus::These(names.clone()).shares(slots, None) {
                Err(_) => prop_assert!(gpus < slots),
                Ok(shares) => {
                    let shares: Vec<String> = shares.into_iter().flatten().collect();
                    prop_assert_eq!(shares.len(), slots as usize);
                    let parted: Vec<String> = shares.join(",").split(',').map(str::to_owned).collect();
                    prop_assert_eq!(parted, names);
                }
            }
        }
    }
}
