//! Lines that have to fit into a number of tokens: the most important stay, in
//! their order, and what went is counted.

use crate::commands::analyze::{tokens, words};

/// Lines with their ranks: those of a lower rank stay longer.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<(u8, String)>,
    /// Other ways to see less or more, behind the usual ones.
    cure: &'static str,
}

impl Lines {
    pub(super) fn new(cure: &'static str) -> Self {
        Self { lines: Vec::new(), cure }
    }

    /// One line. Names in it have gone through [`words`]; what is not ASCII is
    /// spelt out all the same.
    pub(super) fn push(&mut self, rank: u8, text: &str) {
        self.lines.push((rank, format!("{}\n", words::ascii(text))));
    }

    /// The text, of at most `most` tokens.
    pub(super) fn fit(&self, most: usize) -> String {
        let costs: Vec<usize> = self.lines.iter().map(|(_, text)| tokens::bound(text)).collect();
        let whole = self.text(&vec![true; self.lines.len()]);
        let need = tokens::bound(&whole);
        if need <= most {
            return whole;
        }
        let need = need.div_ceil(100) * 100;
        let told = self.cut(self.lines.len(), need);
        let mut room = most.saturating_sub(tokens::bound(&told) + 2);
        let mut order: Vec<usize> = (0..self.lines.len()).collect();
        order.sort_by_key(|index| self.lines.get(*index).map(|line| line.0));
        let mut taken = vec![false; self.lines.len()];
        let mut kept = Vec::new();
        for index in order {
            let cost = costs.get(index).copied().unwrap_or(usize::MAX);
            if cost <= room {
                room -= cost;
                taken[index] = true;
                kept.push(index);
            }
        }
        loop {
            let left = taken.iter().filter(|taken| !**taken).count();
            let text = format!("{}{}", self.text(&taken), self.cut(left, need));
            // The bound of the whole is what counts; that of its lines is an estimate.
            match kept.pop() {
                Some(last) if tokens::bound(&text) > most => taken[last] = false,
                _ => return text,
            }
        }
    }

    fn text(&self, taken: &[bool]) -> String {
        self.lines.iter().zip(taken).filter(|(_, taken)| **taken).map(|(line, _)| line.1.as_str()).collect()
    }

    fn cut(&self, lines: usize, need: usize) -> String {
        let lines = super::numbers::count(lines, "line", "lines");
        format!("cut: {lines}; all with --tokens {need}, everything with --json{}\n", self.cure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lines_that_matter_stay_and_the_rest_is_counted() {
        let mut lines = Lines::new("");
        for index in 0..100 {
            lines.push(if index == 70 { 0 } else { 5 }, &format!("line {index}"));
        }
        let text = lines.fit(60);
        assert!(text.contains("line 70\n") && text.starts_with("line 0\n"), "{text}");
        let shown = text.lines().count() - 1;
        assert!(text.contains(&format!("cut: {} lines; all with --tokens ", 100 - shown)), "{text}");
        assert!(!lines.fit(100_000).contains("cut"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_is_longer_than_asked_for(
            texts in prop::collection::vec((0_u8..9, any::<String>()), 0..60), most in 50_usize..600
        ) {
            let mut lines = Lines::new("; fewer with --metric NAME");
            texts.iter().for_each(|(rank, text)| lines.push(*rank, &format!("  {}", words::metric(text))));
            let text = lines.fit(most);
            let count = tiktoken_rs::o200k_base_singleton().encode_ordinary(&text).len();
            prop_assert!(count <= most, "{count} of {most}: {text}");
        }
    }
}
