//! Lines that have to fit into a number of tokens: the most important stay, in
//! their order, and what went is counted. A line never stays without the lines
//! that it stands below: what it says would be taken for another run's or metric's.

use crate::commands::analyze::{tokens, words};

/// Lines with their ranks: those of a lower rank stay longer.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: Vec<Line>,
    /// Indentation and number of the lines that the next one may stand below.
    open: Vec<(usize, usize)>,
    /// Other ways to see less or more, behind the usual ones.
    cure: &'static str,
}

#[derive(Debug)]
struct Line {
    rank: u8,
    /// The line that it stands below.
    under: Option<usize>,
    text: String,
    /// It begins what is said of a run.
    run: bool,
    /// It says nothing without a line below it.
    hollow: bool,
}

impl Lines {
    pub(crate) fn new(cure: &'static str) -> Self {
        Self { cure, ..Self::default() }
    }

    /// One line, which stands below the nearest one that is indented less. Names in
    /// it have gone through [`words`]; what is not ASCII is spelt out all the same.
    pub(crate) fn push(&mut self, rank: u8, text: &str) {
        let indent = text.len() - text.trim_start_matches(' ').len();
        while self.open.last().is_some_and(|(open, _)| *open >= indent) {
            self.open.pop();
        }
        let under = self.open.last().map(|(_, index)| *index);
        let index = self.push_under(under, rank, text);
        self.open.push((indent, index));
    }

    /// The same, where the line begins what is said of a run: of those that go it is
    /// told how many they are.
    pub(crate) fn push_run(&mut self, rank: u8, text: &str) {
        self.push(rank, text);
        if let Some(line) = self.lines.last_mut() {
            line.run = true;
        }
    }

    /// One line below any other; gives its number. Several lines are one that stays
    /// or goes as a whole.
    pub(crate) fn push_under(&mut self, under: Option<usize>, rank: u8, text: &str) -> usize {
        let text = text.split('\n').map(|line| format!("{}\n", words::ascii(line))).collect();
        self.lines.push(Line { rank, under, text, run: false, hollow: false });
        self.lines.len() - 1
    }

    /// The same for a heading, which goes where nothing below it stays.
    pub(crate) fn push_hollow(&mut self, under: Option<usize>, rank: u8, text: &str) -> usize {
        let index = self.push_under(under, rank, text);
        self.lines[index].hollow = true;
        index
    }

    /// The number of the line that was added last.
    pub(crate) fn last(&self) -> Option<usize> {
        self.lines.len().checked_sub(1)
    }

    /// The text, of at most `most` tokens.
    pub(crate) fn fit(&self, most: usize) -> String {
        let whole = self.text(&vec![true; self.lines.len()]);
        let need = tokens::bound(&whole);
        if need <= most {
            return whole;
        }
        let need = need.div_ceil(100) * 100;
        let told = self.cut(&vec![false; self.lines.len()], need);
        let (mut taken, mut kept) = self.choose(most.saturating_sub(tokens::bound(&told) + 2));
        loop {
            let shown = self.without_hollow(&taken);
            let text = format!("{}{}", self.text(&shown), self.cut(&shown, need));
            // The bound of the whole is what counts; that of its lines is an estimate.
            match kept.pop() {
                Some(last) if tokens::bound(&text) > most => {
                    last.into_iter().for_each(|index| taken[index] = false);
                }
                _ => return text,
            }
        }
    }

    /// Which lines stay in so many tokens, and in what order they were taken: each
    /// with those above it.
    fn choose(&self, mut room: usize) -> (Vec<bool>, Vec<Vec<usize>>) {
        let costs: Vec<usize> = self.lines.iter().map(|line| tokens::bound(&line.text)).collect();
        let mut order: Vec<usize> = (0..self.lines.len()).collect();
        order.sort_by_key(|index| self.lines[*index].rank);
        let (mut taken, mut kept) = (vec![false; self.lines.len()], Vec::new());
        for index in order {
            let above = std::iter::successors(Some(index), |index| self.lines[*index].under);
            let chain: Vec<usize> = above.filter(|index| !taken[*index]).collect();
            let cost: usize = chain.iter().map(|index| costs[*index]).sum();
            if cost <= room && !chain.is_empty() {
                room -= cost;
                chain.iter().for_each(|index| taken[*index] = true);
                kept.push(chain);
            }
        }
        (taken, kept)
    }

    /// The same lines without headings of nothing.
    fn without_hollow(&self, taken: &[bool]) -> Vec<bool> {
        let mut shown = taken.to_vec();
        let mut filled = vec![false; self.lines.len()];
        for (index, line) in self.lines.iter().enumerate().rev() {
            shown[index] = shown[index] && (filled[index] || !line.hollow);
            let says = shown[index] && line.text.trim() != "";
            if let Some(under) = line.under.filter(|_| says) {
                filled[under] = true;
            }
        }
        shown
    }

    fn text(&self, shown: &[bool]) -> String {
        let mut text = String::new();
        for (line, _) in self.lines.iter().zip(shown).filter(|(_, shown)| **shown) {
            // Where lines went, the empty ones around them are too many.
            if line.text != "\n" || !text.ends_with("\n\n") {
                text.push_str(&line.text);
            }
        }
        text
    }

    fn cut(&self, shown: &[bool], need: usize) -> String {
        let gone = || self.lines.iter().zip(shown).filter(|(_, shown)| !**shown).map(|(line, _)| line);
        let (lines, runs) = (gone().count(), gone().filter(|line| line.run).count());
        let lines = super::numbers::count(lines, "line", "lines");
        let runs = match runs {
            0 => String::new(),
            runs => format!("{}, ", super::numbers::count(runs, "more run", "more runs")),
        };
        format!("cut: {runs}{lines}; all with --tokens {need}, everything with --json{}\n", self.cure)
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

    #[test]
    fn no_line_stays_without_those_it_stands_below() {
        let mut lines = Lines::new("");
        for run in 0..40 {
            lines
                .push_run(3, &format!("run-{run}: a heading that is much longer than what is said below it"));
            lines.push(1, &format!("  {run} small"));
            lines.push(0, &format!("    {run} least"));
        }
        for most in [50, 80, 120, 300] {
            let text = lines.fit(most);
            let mut above = ["", ""];
            let mut runs = 0;
            for line in text.lines().filter(|line| !line.starts_with("cut: ")) {
                let number = || line.split_whitespace().next().unwrap();
                match line.len() - line.trim_start().len() {
                    0 => (above[0], runs) = (line, runs + 1),
                    2 => {
                        assert!(above[0].starts_with(&format!("run-{}: ", number())), "{text}");
                        above[1] = line;
                    }
                    _ => assert!(above[1].starts_with(&format!("  {} ", number())), "{text}"),
                }
            }
            assert!(text.contains(&format!("cut: {} more runs, ", 40 - runs)), "{runs}: {text}");
        }
        assert!(lines.fit(300).starts_with("run-0: "));
    }

    #[test]
    fn headings_of_nothing_go_and_drawings_are_whole() {
        let mut lines = Lines::new("");
        let top = lines.push_under(None, 0, "# Report");
        let below = lines.push_hollow(Some(top), 1, "## Metrics");
        lines.push_under(Some(below), 9, &"many words that do not fit at all ".repeat(20));
        let drawn = vec!["    | * |"; 200].join("\n");
        lines.push_under(Some(top), 2, &drawn);
        let text = lines.fit(120);
        assert!(text.starts_with("# Report\ncut: 3 lines; "), "{text}");
        assert!(lines.fit(5_000).matches("| * |").count() == 200);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_is_longer_than_asked_for(
            texts in prop::collection::vec((0_u8..9, 0_usize..4, any::<String>()), 0..60), most in 50_usize..600
        ) {
            let mut lines = Lines::new("; fewer with --metric NAME");
            for (rank, depth, text) in &texts {
                lines.push(*rank, &format!("{}{}", "  ".repeat(*depth), words::metric(text)));
            }
            let text = lines.fit(most);
            let count = tiktoken_rs::o200k_base_singleton().encode_ordinary(&text).len();
            prop_assert!(count <= most, "{count} of {most}: {text}");
        }
    }
}
