//! Moments as EC2 and Azure write them.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month (from 1) and day of a day since 1970-01-01: counted, so that it
/// shares no formula with what is tested.
fn date(mut day: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

fn clock(ms: u64) -> String {
    let seconds = ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

pub(super) fn rfc3339(ms: u64) -> String {
    let (year, month, day) = date(ms / 86_400_000);
    format!("{year:04}-{month:02}-{day:02}T{}Z", clock(ms))
}

pub(super) fn rfc1123(ms: u64) -> String {
    let days = ms / 86_400_000;
    let (year, month, day) = date(days);
    let weekday = DAYS[usize::try_from(days % 7).unwrap_or(0)];
    format!("{weekday}, {day:02} {} {year:04} {} GMT", MONTHS[month - 1], clock(ms))
}

#[test]
fn moments_are_written_as_the_clouds_do() {
    assert_eq!(rfc3339(1_505_722_920_000), "2017-09-18T08:22:00Z");
    assert_eq!(rfc1123(1_474_309_787_000), "Mon, 19 Sep 2016 18:29:47 GMT");
    assert_eq!(rfc3339(1_583_020_799_000), "2020-02-29T23:59:59Z");
}
