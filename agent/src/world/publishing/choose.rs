//! A scan: what lies where checkpoints appear, where each of it stands, and
//! which of it is to be published next. Decides by what it sees and takes
//! nothing by itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use artifacts::complete;
use lifecycle::RunSpec;

use super::look::{Look, Spot, Spots, look, spots};
use super::seen::{self, Rest, Seen};
use super::standing::Standing;
use super::verdicts::{self, End, Facts};
use super::{NAMES, Publishing, asked, beside, end, local};
use crate::world::Candidate;
use crate::world::layout::AttemptDir;

/// What a scan asks of one checkpoint.
struct Asked<'a> {
    spot: &'a Spot,
    look: Look,
    rested: Duration,
    was_moved: bool,
    /// The program said that it is finished; with a step, perhaps.
    said: Option<Option<u64>>,
}

impl Publishing {
    /// Complete and unpublished, newest first. Reads files, so it blocks.
    pub fn candidates(&self, dir: &AttemptDir, attempt: &str, spec: &RunSpec, last: bool) -> Vec<Candidate> {
        let quiet = Duration::from_secs(spec.checkpoints.quiet_seconds);
        let end = if last { end::of(dir) } else { End::Not };
        let seen = self.of(attempt);
        let mut guard = seen::lock(&seen);
        guard.load(dir);
        // Watched before it is listed: what comes meanwhile is told.
        let is_full = self.is_due(dir, &mut guard, spec) || last;
        let began = Instant::now();
        let places = if is_full { spots(dir, spec) } else { Self::open_spots(dir, &guard) };
        if is_full {
            guard.looked = Some((Instant::now(), began.elapsed()));
            guard.changed = false;
        }
        let Spots { found: places, gone, flood, links, temporary, flat, unreadable } = places;
        guard.remark(gone, flood);
        guard.remark_lost(&links, &unreadable);
        guard.remark_flat(flat);
        self.watch(dir, places.iter().map(|spot| spot.path.as_path()));
        let mut standings = BTreeMap::new();
        let mut open = self.open_ones(&mut guard, &places, (dir, spec, last), &mut standings);
        let verdicts = guard.verdicts.clone();
        let mut answers = std::mem::take(&mut guard.answers);
        // Files are read from here on, for as long as they are large.
        drop(guard);
        open.retain_mut(|one| {
            match asked::ask(dir, &spec.checkpoints, &one.spot.path, &one.look, &mut answers) {
                None => true,
                Some(Ok(())) => {
                    one.said.get_or_insert(None);
                    true
                }
                // Its program may have said so itself.
                Some(Err(_)) if one.said.is_some() => true,
                Some(Err(why)) => {
                    standings.insert(one.spot.relative.clone(), Standing::Waits { why });
                    false
                }
            }
        });
        let found = {
            let facts: Vec<Facts<'_>> = open.iter().map(|asked| asked.facts(quiet, &end)).collect();
            let mut verdicts = verdicts::lock(&verdicts);
            let found = verdicts.standings(&facts);
            let whole = facts.iter().map(|facts| facts.is_said || verdicts.is_whole(facts.token));
            found.into_iter().zip(whole).collect::<Vec<_>>()
        };
        let mut guard = seen::lock(&seen);
        guard.answers = answers;
        let mut ready: Vec<(Option<u64>, (i64, i64), Candidate)> = Vec::new();
        for (asked, (standing, whole)) in open.iter().zip(found) {
            let is_ready = matches!(standing, Standing::Ready { .. });
            standings.insert(asked.spot.relative.clone(), standing);
            if !is_ready {
                continue;
            }
            if let Some(open) = guard.open.get_mut(&asked.spot.relative) {
                open.is_said = asked.said.is_some();
            }
            let candidate = asked.candidate(&guard);
            if candidate.step.is_some() || flood.is_none() || whole {
                ready.push((candidate.step, asked.look.written, candidate));
            }
        }
        for (step, written, candidate) in &ready {
            guard.remark_lower(dir, *step, *written, &candidate.name);
        }
        drop(guard);
        let temporary = temporary.into_iter().map(|relative| {
            let name = local::name_of(Path::new(&relative)).to_owned();
            (relative, Standing::Waits { why: complete::Reason::TemporaryName { name } })
        });
        let links =
            links.into_iter().map(|(relative, to, is_judged)| (relative, Standing::Link { to, is_judged }));
        self.look_back(attempt, standings, temporary.chain(links), (is_full, last), quiet);
        // At the end the one with the highest step, and then what was written
        // last: steps may begin anew while a program runs.
        let top = ready.iter().map(|(step, ..)| *step).max().flatten();
        ready.sort_by_key(|(step, modified, c)| {
            let first = if last { step.filter(|step| Some(*step) == top) } else { *step };
            (c.older, std::cmp::Reverse((first, *modified)))
        });
        ready.into_iter().map(|(_, _, candidate)| candidate).collect()
    }

    /// What is to be judged, after a look at each; what needs no judgement is
    /// put among the standings.
    fn open_ones<'a>(
        &self,
        guard: &mut Seen,
        places: &'a [Spot],
        (dir, spec, last): (&AttemptDir, &RunSpec, bool),
        standings: &mut BTreeMap<String, Standing>,
    ) -> Vec<Asked<'a>> {
        let quiet = Duration::from_secs(spec.checkpoints.quiet_seconds);
        let mut open = Vec::new();
        for spot in places {
            let Some(look) = look(&spot.path) else { continue };
            if look.is_file
                && (beside::is_none_itself(&spot.path) || asked::is_marker(&spec.checkpoints, &spot.path))
            {
                standings.insert(spot.relative.clone(), Standing::Beside);
                continue;
            }
            let rested = match guard.rest(&spot.relative, &look, quiet) {
                Rest::Known if guard.stored.contains(&spot.relative) => Err(Standing::Stored),
                Rest::Known => Err(Standing::Known),
                Rest::Shrinks => Err(Standing::Waits { why: complete::Reason::Shrinks }),
                // Nothing changes any more once the program has ended.
                Rest::New if !last => Err(Standing::New),
                Rest::New => Ok(Duration::ZERO),
                Rest::For(rested) => Ok(rested),
            };
            match rested {
                Ok(rested) => {
                    let said = guard.words.now(dir).get(&spot.relative);
                    let said = said.filter(|word| word.at >= look.written).map(|word| word.step);
                    let was_moved = look.moved || look.is_file && self.was_renamed(&spot.path);
                    open.push(Asked { spot, look, rested, was_moved, said });
                }
                Err(standing) => drop(standings.insert(spot.relative.clone(), standing)),
            }
        }
        open
    }
}

impl Asked<'_> {
    fn facts<'a>(&'a self, quiet: Duration, end: &'a End) -> Facts<'a> {
        Facts {
            path: &self.spot.path,
            token: &self.look.token,
            rested: self.rested,
            quiet,
            touched: self.look.touched,
            was_moved: self.was_moved,
            end,
            is_said: self.said.is_some(),
        }
    }

    fn candidate(&self, seen: &Seen) -> Candidate {
        let (name, relative) = (local::name_of(&self.spot.path).to_owned(), &self.spot.relative);
        let step = self.said.flatten().or_else(|| complete::step_of(&name));
        // A file that is saved over is newer than it was, whatever the clock says.
        let is_old = seen.newest.is_some_and(|newest| self.look.written < newest);
        let older = step.is_none() && is_old && !seen.known.contains_key(relative);
        Candidate { token: format!("{} {relative}", self.look.token), name, step, older }
    }
}

impl Seen {
    /// Tells of a checkpoint whose files lie where each counts by itself.
    fn remark_flat(&mut self, flat: Option<(String, String)>) {
        if let Some((description, weights)) = flat {
            self.remark_once(format!(
                "`{description}` and `{weights}` look like parts of one checkpoint, and each file directly in \
                 $OUTLAST_CHECKPOINT_DIR is one by itself: save into a directory below it, such as `step-100`"
            ));
        }
    }

    /// Tells of what looks like checkpoints and is none that could be stored.
    fn remark_lost(&mut self, links: &[(String, String, bool)], unreadable: &[String]) {
        for (relative, to, _) in links.iter().filter(|(.., is_judged)| !is_judged) {
            let name: String = relative.strip_prefix("@/").unwrap_or(relative).chars().take(200).collect();
            self.remark_once(format!(
                "`{name}` is a link that leads to `{to}`, where no checkpoints are looked for: it is not stored. Save \
                 into $OUTLAST_CHECKPOINT_DIR itself"
            ));
        }
        for name in unreadable.iter().take(NAMES) {
            let name: String = name.chars().take(200).collect();
            self.remark_once(format!("`{name}` has a name that is not UTF-8: it is not stored"));
        }
    }

    /// Tells once that a save is newer than what is durable and bears a lower
    /// step: the newest checkpoint of a run is the one with the highest.
    fn remark_lower(&mut self, dir: &AttemptDir, step: Option<u64>, written: (i64, i64), name: &str) {
        let Some(step) = step.filter(|_| self.newest.is_some_and(|newest| written > newest)) else { return };
        let durable = self.durable.iter().map(|(relative, _)| local::path_of(dir, relative));
        let top = durable.filter_map(|path| complete::step_of(local::name_of(&path))).max();
        let Some(top) = top.filter(|top| step < *top) else { return };
        if !std::mem::replace(&mut self.remarked[2], true) {
            let name: String = name.chars().take(200).collect();
            self.remarks.push(format!(
                "the steps went back: checkpoint `{name}` was saved after step {top}. It is kept, and step {top} \
                 stays the newest checkpoint of the run; `outlast fork RUN@{step}` goes on from this one"
            ));
        }
    }

    /// Keeps what people should know of the places, each remark once.
    fn remark(&mut self, gone: bool, flood: Option<usize>) {
        self.flood = flood;
        let text = match flood {
            Some(entries) => format!(
                "the checkpoint directory holds {entries} entries: only the newest {NAMES} are looked at, and of \
                 those only what a name or a format says to be a checkpoint"
            ),
            None if gone => {
                "the program removed its checkpoint directory ($OUTLAST_CHECKPOINT_DIR): what was \
                             durable stays so, nothing new can be saved there"
                    .to_owned()
            }
            None => return,
        };
        let kind = if gone { 0 } else { 1 };
        if !std::mem::replace(&mut self.remarked[kind], true) {
            self.remarks.push(text);
        }
    }
}
