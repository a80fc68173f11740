//! Runs that are looked at again and again: of files that only grew, the new bytes
//! alone are read, and the judge goes on from where it was.
//!
//! What is said must be what a reading from the beginning would say. Whatever is not
//! certainly a continuation, such as a file that was exchanged or cut, a part that grew
//! before others, or settings that are known only now, is read from the beginning.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use curves::format::{Format, Schema};
use curves::judge::Settings;
use curves::log::{Counts, Reader};

use super::read::{self, Losses, MAX_FILE_BYTES, Plan, Run, Taken};
use super::source::{Inside, Part, Source};
use super::{find, live, schema, words};
use crate::config::Metrics;

/// Runs that are held; those asked for longest ago go.
const MOST: usize = 8;
/// Parts of one run: each holds a reader.
const MOST_PARTS: usize = 256;
/// Bytes before the place, by which a file is known again.
const KNOWN_BY: usize = 256;
/// Bytes of a small file that says what is known of a run; it is read whole.
const SMALL: u64 = 1 << 20;

/// The runs that were looked at.
#[derive(Default)]
pub(crate) struct Followers {
    /// The one that was asked for last is the last.
    held: Vec<Held>,
}

/// One run, and where its reading stands.
struct Held {
    path: PathBuf,
    metrics: Option<Metrics>,
    keys: Schema,
    taken: Taken,
    /// What the settings depend on that it was read with.
    plan: Plan,
    noted: Vec<String>,
    places: Vec<Place>,
    /// What is known of a run of the controller's, which is written anew each time.
    about: Option<(Vec<u8>, Counts)>,
}

/// Where the reading of one file stands.
struct Place {
    part: Part,
    file: (u64, u64),
    at: u64,
    before: Vec<u8>,
    reader: Box<dyn Reader + Send>,
    /// There is a line behind the place that has not ended.
    unfinished: bool,
    notes: Vec<String>,
}

impl Followers {
    /// As [`read::analyse`], of files that grew since by their new bytes.
    pub(super) fn analyse(&mut self, source: &Source, metrics: Option<&Metrics>) -> Run {
        let index = self.held.iter().position(|held| held.path == source.path);
        let before = index.map(|index| self.held.remove(index));
        let (about, parts) = divided(source);
        if parts.is_empty() || parts.len() > MOST_PARTS || !parts.iter().all(|part| grows(part)) {
            return read::analyse(source, metrics);
        }
        // Nothing is held that would have to be read twice now.
        if before.is_none() && parts.iter().any(|part| is_unfinished(part)) {
            return read::analyse(source, metrics);
        }
        let fits = |held: &mut Held| held.metrics.as_ref() == metrics && held.go_on(about, &parts).is_some();
        let before = before.and_then(|mut held| fits(&mut held).then_some(held));
        let held = before.or_else(|| Held::begin(source, metrics, about, &parts).ok());
        // Where there is no history, there may be something that was printed.
        let Some(held) = held.filter(|held| !held.taken.is_empty()) else {
            return read::analyse(source, metrics);
        };
        // A line without its end is read by a first reading, and may still grow.
        let unfinished = held.places.iter().any(|place| place.unfinished);
        let mut held = held;
        let run = if unfinished { read::analyse(source, metrics) } else { held.run(source) };
        if self.held.len() >= MOST {
            self.held.remove(0);
        }
        self.held.push(held);
        run
    }
}

/// What is known of a run of the controller's, and its other files.
fn divided(source: &Source) -> (Option<&Part>, Vec<&Part>) {
    let is_about = |part: &&Part| part.path.file_name().is_some_and(|name| name == live::ABOUT);
    let (about, parts): (Vec<&Part>, Vec<&Part>) = source.parts.iter().partition(is_about);
    (about.first().copied(), parts)
}

/// Whether a part is a file that is appended to.
fn grows(part: &Part) -> bool {
    let appended = [
        Format::Wandb,
        Format::TensorBoard,
        Format::JsonLines,
        Format::Delimited,
        Format::Console,
        Format::Outlast,
    ];
    matches!(part.inside, Inside::Bytes | Inside::Hparams | Inside::Yaml) && appended.contains(&part.format)
}

impl Held {
    fn begin(
        source: &Source,
        metrics: Option<&Metrics>,
        about: Option<&Part>,
        parts: &[&Part],
    ) -> io::Result<Self> {
        let mut held = Self {
            path: source.path.clone(),
            metrics: metrics.cloned(),
            keys: schema::keys(metrics),
            taken: Taken::new(Settings::default()),
            plan: Plan::default(),
            noted: Vec::new(),
            places: Vec::new(),
            about: None,
        };
        held.read(about, parts)?;
        if let Some((settings, noted)) = held.taken.better(metrics) {
            held.taken = Taken::new(settings);
            held.noted = noted;
            held.places.clear();
            held.about = None;
            held.read(about, parts)?;
        }
        held.plan = held.taken.plan();
        Ok(held)
    }

    /// Reads what is new; `None` where that is no mere continuation.
    fn go_on(&mut self, about: Option<&Part>, parts: &[&Part]) -> Option<()> {
        let same = |place: &Place, part: &Part| {
            place.part.path == part.path
                && place.part.format == part.format
                && place.part.resumed == part.resumed
        };
        let all = self.places.len() <= parts.len();
        if !all || !self.places.iter().zip(parts).all(|(place, part)| same(place, part)) {
            return None;
        }
        // Points of an earlier file that come late have another place in the order,
        // unless the files are of metrics of their own.
        let last = parts.len().checked_sub(1)?;
        for (index, place) in self.places.iter().enumerate() {
            let grown = place.grown()?;
            let own = index == last || alone(&place.part, parts);
            if grown && !own {
                return None;
            }
        }
        self.read(about, parts).ok()?;
        // Whatever settings are made of may have come with the new bytes.
        let now = self.taken.plan();
        let settled = (now.planned, &now.goals) == (self.plan.planned, &self.plan.goals);
        (settled && (self.metrics.is_none() || now.logged == self.plan.logged)).then_some(())
    }

    /// Reads on in all files, and in those that are new.
    fn read(&mut self, about: Option<&Part>, parts: &[&Part]) -> io::Result<()> {
        for (index, part) in parts.iter().enumerate() {
            if index == self.places.len() {
                let reader = read::reader(part, &self.keys)?;
                let place = Place {
                    part: (*part).clone(),
                    file: (0, 0),
                    at: 0,
                    before: Vec::new(),
                    reader,
                    unfinished: false,
                    notes: Vec::new(),
                };
                self.places.push(place);
            }
            if let Some(place) = self.places.get_mut(index) {
                place.read(&mut self.taken)?;
            }
        }
        let Some(part) = about else { return Ok(()) };
        let mut bytes = Vec::new();
        find::open(part.file())?.take(SMALL).read_to_end(&mut bytes)?;
        if self.about.as_ref().is_none_or(|(before, _)| *before != bytes) {
            self.taken.forget_end();
            let mut reader = read::reader(part, &self.keys)?;
            reader.feed(&bytes, &mut self.taken);
            reader.finish(&mut self.taken);
            self.about = Some((bytes, *reader.counts()));
        }
        Ok(())
    }

    fn run(&mut self, source: &Source) -> Run {
        let mut losses = Losses::default();
        self.places.iter().for_each(|place| losses.add(place.reader.counts()));
        self.about.iter().for_each(|(_, counts)| losses.add(counts));
        let notes = self.places.iter().flat_map(|place| &place.notes).chain(&self.noted);
        self.taken.run(source, losses, notes.cloned().collect())
    }
}

/// Whether a file's metrics are of no other file: TensorBoard's directories are
/// runs of their own names, one file at a time.
fn alone(part: &Part, parts: &[&Part]) -> bool {
    let dir = part.path.parent();
    part.format == Format::TensorBoard
        && parts.iter().filter(|other| other.path.parent() == dir && other.inside != Inside::Yaml).count()
            == 1
}

impl Place {
    /// Whether there is more than was read; `None` if it is another file, or what was
    /// read is not what it begins with any more.
    fn grown(&self) -> Option<bool> {
        let file = find::open(self.part.file()).ok()?;
        let meta = file.metadata().ok()?;
        if (meta.dev(), meta.ino()) != self.file || meta.len() < self.at {
            return None;
        }
        let mut before = vec![0; self.before.len()];
        file.read_exact_at(&mut before, self.at - self.before.len() as u64).ok()?;
        (before == self.before).then_some(meta.len() > self.at)
    }

    fn read(&mut self, taken: &mut Taken) -> io::Result<()> {
        let mut file = find::open(self.part.file())?;
        let meta = file.metadata()?;
        if meta.len() > MAX_FILE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file = (meta.dev(), meta.ino());
        let end = if in_records(&self.part) { meta.len() } else { end_of_lines(&file, self.at, meta.len())? };
        self.unfinished = end < meta.len();
        if end > self.at || self.at == 0 {
            file.seek(SeekFrom::Start(self.at))?;
            let same: Option<File> = file.try_clone().ok();
            let reader = &mut self.reader;
            // Not beyond what the file had just now, so that the place is known.
            let (mut new, mut taken_in) = ((&file).take(end - self.at), 0);
            let (passed, read) = read::through(&mut new, same, |bytes| {
                taken_in += bytes.len() as u64;
                reader.feed(bytes, taken);
            });
            read?;
            // Behind a hole more may have been read than was meant to.
            if passed > 0 && end < meta.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if passed > 0 {
                let name = words::quoted(&self.part.path.file_name().unwrap_or_default().to_string_lossy());
                self.notes
                    .push(format!("{name}: a hole of {passed} bytes, to which nothing was ever written"));
            }
            self.at += taken_in + passed;
            let length = KNOWN_BY.min(usize::try_from(self.at).unwrap_or(KNOWN_BY));
            self.before = vec![0; length];
            file.read_exact_at(&mut self.before, self.at - length as u64)?;
            self.reader.finish(taken);
        }
        Ok(())
    }
}

fn in_records(part: &Part) -> bool {
    matches!(part.format, Format::Wandb | Format::TensorBoard)
}

/// Whether the last line of a file has no end yet.
fn is_unfinished(part: &Part) -> bool {
    let last = || {
        let file = find::open(part.file()).ok()?;
        let mut last = [0];
        let at = file.metadata().ok()?.len().checked_sub(1)?;
        file.read_exact_at(&mut last, at).ok().map(|()| last != *b"\n")
    };
    !in_records(part) && last().unwrap_or(false)
}

/// Where the last whole line ends, at `from` or behind it.
fn end_of_lines(file: &File, from: u64, length: u64) -> io::Result<u64> {
    let (mut end, mut piece) = (length, vec![0; 64 * 1024]);
    while end > from {
        let start = end.saturating_sub(piece.len() as u64).max(from);
        let bytes = &mut piece[..usize::try_from(end - start).unwrap_or_default()];
        file.read_exact_at(bytes, start)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(from)
}

#[cfg(test)]
mod tests;
