//! Whether the steps of a log only rise. Where a log has lines of several runs, or
//! of a run that began anew, they do not, and whoever reads its curves has to know.

/// Parts of a run of which it is told what became of them.
const MOST_PARTS: usize = 4096;

/// What became of the steps of each metric.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last: Vec<Option<u64>>,
    repeated: u64,
    falling: u64,
    first: Option<u64>,
    /// The lowest step and the values of each part before the present one.
    parts: Vec<(u64, u64)>,
    part: Option<(u64, u64)>,
}

impl Order {
    /// The next value of a metric.
    pub(crate) fn point(&mut self, metric: usize, step: u64) {
        let (lowest, values) = self.part.unwrap_or((step, 0));
        self.part = Some((lowest.min(step), values + 1));
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
    pub(crate) fn anew(&mut self) {
        self.last.clear();
        let part = self.part.take().filter(|_| self.parts.len() < MOST_PARTS);
        self.parts.extend(part);
    }

    /// Of W&B's parts of a run: those of which nothing is left, as a later one begins
    /// where they do or before it.
    pub(crate) fn replaced(&self) -> Option<String> {
        let (mut parts, mut values) = (0_u64, 0_u64);
        let mut least = self.part.map_or(u64::MAX, |(lowest, _)| lowest);
        for (lowest, count) in self.parts.iter().rev() {
            if *lowest >= least {
                parts += 1;
                values += count;
            }
            least = least.min(*lowest);
        }
        (parts > 0).then(|| {
            let which = if parts == 1 { "1 earlier part".to_owned() } else { format!("{parts} earlier parts") };
            format!(
                "{which} of the run ({values} values) left out: a later one begins at their first step, as W&B counts from 0 again where a run is resumed offline and logs without `step=`; name a .wandb file to see it alone"
            )
        })
    }

    /// What there is to say.
    pub(crate) fn told(&self) -> Option<String> {
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

    #[test]
    fn parts_that_later_ones_replace_whole_are_told() {
        let told = |parts: &[std::ops::Range<u64>]| {
            let mut order = Order::default();
            for part in parts {
                order.anew();
                part.clone().for_each(|step| order.point(0, step));
            }
            order.replaced()
        };
        let whole = told(&[0..40, 0..40, 0..20]).unwrap();
        assert!(whole.starts_with("2 earlier parts of the run (80 values) left out"), "{whole}");
        assert!(told(&[0..40, 10..50, 0..60]).unwrap().contains("2 earlier parts"));
        assert!(told(&[0..40, 30..50, 20..60]).unwrap().starts_with("1 earlier part of the run (20 values)"));
        assert_eq!(told(&[0..40, 40..80, 60..90]), None, "a part of them is done again");
        assert_eq!(told(std::slice::from_ref(&(0..40))), None);
    }
}
