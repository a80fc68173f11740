//! Whether the steps of a log only rise. Where a log has lines of several runs, or
//! of a run that began anew, they do not, and whoever reads its curves has to know.

/// What became of the steps of each metric.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: Vec<Option<u64>>,
    repeated: u64,
    falling: u64,
    first: Option<u64>,
}

impl Order {
    /// The next value of a metric.
    pub(super) fn point(&mut self, metric: usize, step: u64) {
        if metric >= self.last.len() {
            self.last.resize(metric + 1, None);
        }
        let Some(last) = self.last.get_mut(metric) else { return };
        if let Some(before) = last.filter(|before| *before >= step) {
            if before == step {
                self.repeated += 1;
            } else {
                self.falling += 1;
            }
            self.first.get_or_insert(step);
        }
        *last = Some(step);
    }

    /// What follows goes on from an earlier part, which is told elsewhere.
    pub(super) fn anew(&mut self) {
        self.last.clear();
    }

    /// What there is to say.
    pub(super) fn told(&self) -> Option<String> {
        let first = self.first?;
        Some(format!(
            "steps do not only rise: {} values have the step of the one before, {} an earlier one, first at step {first}",
            self.repeated, self.falling
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_come_again_or_go_back_are_counted() {
        let mut order = Order::default();
        [1, 2, 2, 5, 3, 4].iter().for_each(|step| order.point(0, *step));
        [7, 8].iter().for_each(|step| order.point(3, *step));
        let told = order.told().unwrap();
        assert!(
            told.contains("1 values have the step of the one before, 1 an earlier one, first at step 2"),
            "{told}"
        );
        let mut order = Order::default();
        order.point(0, 5);
        order.anew();
        order.point(0, 1);
        assert_eq!(order.told(), None);
    }
}
