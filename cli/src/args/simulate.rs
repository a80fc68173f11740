//! What `outlast simulate` takes.

use std::path::PathBuf;
use std::time::Duration;

/// `outlast simulate`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("recording").required(true).args(["trace", "generate"]))]
pub struct SimulateArgs {
    /// A recording of one zone, or a directory of them; several make several zones
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub trace: Vec<PathBuf>,
    /// Make up so many zones instead, as heavy tailed as recorded ones
    #[arg(long, value_name = "ZONES", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub generate: Option<u32>,
    /// How many days to make up
    #[arg(long, value_name = "DAYS", default_value = "30", value_parser = days, requires = "generate")]
    pub days: f64,
    /// ours, on-demand, hourly, half-hourly, greedy, uniform-progress, or all
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "all")]
    pub policy: Vec<String>,
    /// Work to be done, in hours of an undisturbed machine [default: as much as there is time for]
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    pub work: Option<Duration>,
    /// Hours after its beginning at which it must have ended
    #[arg(long, value_name = "HOURS", value_parser = hours, requires = "work")]
    pub deadline: Option<Duration>,
    /// From a loss until it is known
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    pub detect: Duration,
    /// From the order of a machine to the program's going on there
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = super::duration)]
    pub relaunch: Duration,
    /// How long the program stands still for a save
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = super::duration)]
    pub save: Duration,
    /// How long before its end a machine is told of it; 0: never
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = super::duration)]
    pub notice: Duration,
    /// Dollars an hour of a spot machine where the recording has no price
    #[arg(long, value_name = "USD", default_value = "0.918", value_parser = dollars)]
    pub spot_price: f64,
    /// Dollars an hour of an on-demand machine
    #[arg(long, value_name = "USD", default_value = "3.06", value_parser = dollars)]
    pub on_demand_price: f64,
    /// Machines that must be available at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: u32,
    /// Begin so often, at random moments of the recording, and show means
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub windows: Option<u32>,
    /// What random moments and made-up zones are drawn from
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Draw what each policy did when into this file
    #[arg(long, value_name = "FILE", conflicts_with = "windows")]
    pub svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads hours: `40`, `40h`, `90m`, `3d`.
fn hours(text: &str) -> Result<Duration, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let span = match text.strip_suffix('d') {
        Some(days) => super::duration(&format!("{days}h"))?.checked_mul(24).unwrap_or(Duration::MAX),
        None if plain => super::duration(&format!("{text}h"))?,
        None => super::duration(text)?,
    };
    if span.is_zero() || span > Duration::from_secs(3_660 * 86_400) {
        return Err("that is no time to work in".into());
    }
    Ok(span)
}

fn dollars(text: &str) -> Result<f64, String> {
    let usd = text.parse::<f64>().map_err(|_| "a price is a number of dollars, such as 0.9")?;
    if (0.0..=10_000.0).contains(&usd) { Ok(usd) } else { Err("that is no price of an hour".into()) }
}

fn days(text: &str) -> Result<f64, String> {
    let days = text.parse::<f64>().map_err(|_| "it is a number of days, such as 30")?;
    if (0.1..=3_660.0).contains(&days) { Ok(days) } else { Err("0.1 to 3660 days can be made up".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_written_in_hours() {
        for (text, seconds) in
            [("40", 144_000), ("1.5", 5_400), ("40h", 144_000), ("90m", 5_400), ("3d", 259_200)]
        {
            assert_eq!(hours(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "0", "-1", "h", "1e9d", "99999999999"] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }
}
