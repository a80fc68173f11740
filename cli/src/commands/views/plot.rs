//! `outlast plot`: curves of one or several runs over each other, with gaps
//! where values are not finite and marks where something was found.

use std::path::Path;

use curves::downsample::min_max;
use curves::judge::Severity;
use curves::view::Axis;
use curves::view::draw::{Chart, Frame, Line, Mark, Signs, raster, svg, terminal};
use serde_json::json;

use super::budget::Lines;
use super::load::{self, Run};
use super::{Answer, history, numbers, picture};
use crate::app::Context;
use crate::args::PlotArgs;
use crate::commands::analyze::{tokens, words};
use crate::exit_code::{ExitCode, Failure};

/// Marks that are drawn.
const MARKS: usize = 8;
/// Lines that are drawn.
const LINES: usize = 40;
/// Sizes that are tried where nobody says one, from the largest.
const SIZES: [(usize, usize); 8] =
    [(100, 24), (72, 16), (64, 12), (48, 10), (40, 8), (30, 6), (20, 4), (12, 3)];

/// On a terminal the drawing has its width, whatever tokens it costs.
pub(super) fn for_terminal(ctx: &Context, args: &PlotArgs) -> PlotArgs {
    let mut args = args.clone();
    let settings = ctx.printer.settings();
    if settings.stdout.terminal && args.out.is_none() {
        let width = u32::try_from(settings.width).unwrap_or(80).clamp(40, 200) - 14;
        args.width = args.width.or(Some(width));
        args.height = args.height.or(Some(16));
    }
    args
}

/// See the module.
///
/// # Errors
/// A run or metric that is not there or means several, or a file that cannot be
/// written.
pub(crate) fn answer(args: &PlotArgs) -> anyhow::Result<Answer> {
    let kind = args.out.as_deref().map(Picture::of).transpose()?;
    let runs = args
        .paths
        .iter()
        .map(|path| load::one(path, args.run.as_deref(), args.shown.format.as_ref()))
        .collect::<Result<Vec<Run>, _>>()?;
    // A font of this program's draws pixels, and it knows ASCII alone.
    let chart = match kind {
        Some(Picture::Svg | Picture::Script) => chart(&runs, args, (words::page, words::page_path))?,
        Some(Picture::Png) | None => chart(&runs, args, (words::metric, words::path))?,
    };
    let text = match &args.out {
        None => drawn(&chart, args),
        Some(out) => {
            write(&chart, (out, kind.unwrap_or(Picture::Svg)), args)?;
            said_written(out, "", args.shown.tokens)
        }
    };
    let json = json!({
        "title": chart.title,
        "axis": chart.places,
        "log": chart.log,
        "written": args.out,
        "lines": chart.lines.iter().map(|line| json!({
            "name": line.name,
            "points": min_max(&line.points, 200).iter().map(|p| json!([p.0, numbers::json(p.1)])).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "marks": chart.marks.iter().map(|mark| json!({ "place": mark.place, "text": mark.text })).collect::<Vec<_>>(),
    });
    Ok(Answer { text, json })
}

/// How names of metrics and paths are written.
type Names = (fn(&str) -> String, fn(&Path) -> String);

/// The chart of runs and metrics; lines of several runs carry the run's name.
fn chart(runs: &[Run], args: &PlotArgs, (named, placed): Names) -> Result<Chart, Failure> {
    let mut lines = Vec::new();
    let mut marks = Vec::new();
    let mut axis = Axis::Step;
    let mut wanted = args.metrics.clone();
    for run in runs {
        let names = history::wanted(run, &wanted)?;
        if wanted.is_empty() {
            wanted.clone_from(&names);
        }
        for name in &names {
            let Some(course) = run.course(name) else { continue };
            if course.axis == Axis::Row {
                axis = Axis::Row;
            }
            let points = course.between(args.from, args.to).to_vec();
            let label = match runs {
                [_] => named(name),
                _ => format!("{} of {}", named(name), placed(run.gathered.path())),
            };
            lines.push(Line { name: label, points });
        }
        if let [_] = runs {
            marks = found(run, &names, named);
        }
    }
    if lines.len() > LINES {
        let message = format!("{} lines; at most {LINES} are drawn", lines.len());
        return Err(Failure::new(ExitCode::BadInput, message).help("name fewer with --metric"));
    }
    if lines.iter().all(|line| line.points.is_empty()) {
        return Err(Failure::new(ExitCode::BadInput, "no values in that range")
            .help("give other steps with --from and --to"));
    }
    let title = match runs {
        [run] => placed(run.gathered.path()),
        _ => String::new(),
    };
    let mut chart = Chart::new(title, axis.name(), lines);
    chart.log = args.log;
    if Frame::of(&chart).is_none() {
        let why = if args.log { "no value is above zero" } else { "no value is finite" };
        let failure = Failure::new(ExitCode::BadInput, format!("nothing can be drawn: {why}"));
        return Err(failure.help("`outlast history` shows the values as they are"));
    }
    let inside =
        |place: u64| args.from.is_none_or(|from| place >= from) && args.to.is_none_or(|to| place <= to);
    marks.retain(|mark| inside(mark.place));
    chart.marks = marks;
    Ok(chart)
}

/// What the judge found in these metrics, the worst first.
pub(super) fn found(run: &Run, names: &[String], named: fn(&str) -> String) -> Vec<Mark> {
    let report = run.gathered.judge();
    report
        .findings
        .iter()
        .filter(|finding| finding.severity >= Severity::Warning && names.contains(&finding.metric))
        .filter_map(|finding| {
            let text = format!("{} in {}", finding.kind.name(), named(&finding.metric));
            Some(Mark { place: finding.first_step?, text })
        })
        .take(MARKS)
        .collect()
}

/// In characters: of the size that was asked for, or the largest that fits.
fn drawn(chart: &Chart, args: &PlotArgs) -> String {
    let signs = if args.unicode { Signs::Braille } else { Signs::Ascii };
    if args.width.is_some() || args.height.is_some() {
        let (width, height) = (args.width.unwrap_or(72) as usize, args.height.unwrap_or(16) as usize);
        return terminal(chart, width, height, signs);
    }
    let most = args.shown.tokens as usize;
    for (width, height) in SIZES {
        let text = terminal(chart, width, height, signs);
        if count(&text) <= most {
            return text;
        }
    }
    let (width, height) = SIZES[SIZES.len() - 1];
    let need = count(&terminal(chart, width, height, signs)).div_ceil(100) * 100;
    format!(
        "cut: the smallest drawing needs --tokens {need}; fewer lines with --metric, a picture with --out\n"
    )
}

/// Tokens at most. Of a Braille pattern each byte may be one; a space before it
/// may go with it, so a stretch of ASCII between has one more.
fn count(text: &str) -> usize {
    let beyond: usize = text.chars().filter(|c| !c.is_ascii()).map(char::len_utf8).sum();
    if beyond == 0 {
        return tokens::bound(text);
    }
    let stretches = text.split(|c: char| !c.is_ascii()).filter(|part| !part.is_empty());
    beyond + stretches.map(|part| tokens::bound(part) + 1).sum::<usize>()
}

/// What is written, by the end of its name.
#[derive(Debug, Clone, Copy)]
enum Picture {
    Svg,
    Png,
    Script,
}

impl Picture {
    fn of(out: &Path) -> Result<Self, Failure> {
        let end = out.extension().map(|end| end.to_string_lossy().to_lowercase());
        match end.as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            Some("py") => Ok(Self::Script),
            _ => {
                let message = format!("{}: its end says no kind of picture", words::path(out));
                let failure = Failure::new(ExitCode::BadInput, message);
                Err(failure.help("end it in .svg, .png or .py (matplotlib)"))
            }
        }
    }
}

fn write(chart: &Chart, (out, kind): (&Path, Picture), args: &PlotArgs) -> anyhow::Result<()> {
    let (width, height) = (args.width.unwrap_or(800), args.height.unwrap_or(450));
    let bytes = match kind {
        Picture::Svg => svg(chart, width, height).into_bytes(),
        Picture::Png => picture::png(&raster(chart, width, height)),
        Picture::Script => picture::script(chart).into_bytes(),
    };
    save(out, &bytes)
}

/// That a file was written.
pub(super) fn said_written(out: &Path, more: &str, tokens: u32) -> String {
    let mut lines = Lines::new("");
    lines.push(0, &format!("{} is written", words::path(out)));
    if !more.is_empty() {
        lines.push(0, more);
    }
    lines.fit(tokens as usize)
}

/// Writes a file that a person named.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn save(out: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(out, bytes).map_err(|error| {
        Failure::new(ExitCode::CannotWrite, format!("{}: {error}", words::path(out)))
            .help("name a file in a directory that you may write to")
            .into()
    })
}
