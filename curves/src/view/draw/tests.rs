//! Pictures of known curves, and of any values at all.

use super::*;
use proptest::prelude::*;

fn falling() -> Vec<Place> {
    (0..200).map(|i| (i, 100.0 - i as f64 / 2.0)).collect()
}

fn chart(points: Vec<Place>) -> Chart {
    Chart::new("title", "step", vec![Line { name: "loss".into(), points }])
}

#[test]
fn a_falling_line_falls() {
    let drawn = terminal(&chart(falling()), 20, 5, Signs::Ascii);
    let rows: Vec<&str> = drawn.lines().filter(|line| line.contains('|')).collect();
    assert_eq!(rows.len(), 5);
    let first = |row: &str| row.split_once('|').and_then(|(_, row)| row.find('*'));
    let places: Vec<Option<usize>> = rows.iter().map(|row| first(row)).collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{drawn}");
    assert!(drawn.is_ascii() && drawn.starts_with("title\n* loss, last 0.5\n"), "{drawn}");
    assert!(drawn.lines().any(|line| line.contains("step 0") && line.ends_with("199")), "{drawn}");
    let dots = terminal(&chart(falling()), 20, 5, Signs::Braille);
    assert!(dots.chars().any(|c| ('\u{2800}'..='\u{28ff}').contains(&c)), "{dots}");
}

#[test]
fn what_is_not_finite_is_a_gap_that_is_marked() {
    let mut points = falling();
    (80..120).for_each(|i| points[i].1 = f64::NAN);
    let mut chart = chart(points);
    chart.marks.push(Mark { place: 80, text: "NaN".into() });
    let drawn = terminal(&chart, 50, 8, Signs::Ascii);
    assert!(drawn.contains('!') && drawn.contains("^ 80: NaN") && drawn.contains("no place"), "{drawn}");
    let drawn = svg(&chart, 640, 400);
    assert_eq!(drawn.matches("<polyline").count(), 2, "two stretches");
    assert!(drawn.contains("80: NaN") && drawn.contains("not finite"));
    let picture = raster(&chart, 640, 400);
    assert!(picture.pixels.contains(&2) && picture.pixels.contains(&11));
}

#[test]
fn a_logarithmic_scale_leaves_out_what_has_no_logarithm() {
    let mut chart =
        chart((0..5).map(|i| (i, 10_f64.powi(i as i32 - 2))).chain([(5, 0.0), (6, -1.0)]).collect());
    chart.log = true;
    let frame = Frame::of(&chart).expect("five values");
    assert_eq!(frame.place((2, 1.0)).map(|p| p.1), Some(0.5));
    assert_eq!((frame.place((5, 0.0)), frame.place((6, -1.0))), (None, None));
    let ticks: Vec<String> = frame.values(6).into_iter().map(|tick| tick.text).collect();
    assert_eq!(ticks, ["0.01", "0.1", "1", "10", "100"]);
}

#[test]
fn names_cannot_leave_their_place() {
    let evil = "</text><script>alert(1)</script>\u{0}\"'&";
    let mut chart = Chart::new(evil, evil, vec![Line { name: evil.into(), points: falling() }]);
    chart.marks.push(Mark { place: 3, text: evil.into() });
    let drawn = svg(&chart, 400, 300);
    assert!(!drawn.contains("<script") && !drawn.contains('\u{0}'));
    assert_eq!(drawn.matches('<').count(), drawn.matches('>').count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_values_are_drawn(
        values in prop::collection::vec((any::<u64>(), any::<f64>()), 0..60),
        (width, height, log) in (0_usize..500, 0_usize..300, any::<bool>())
    ) {
        let mut points = values;
        points.sort_by_key(|point| point.0);
        let mut chart = chart(points);
        chart.log = log;
        for signs in [Signs::Ascii, Signs::Braille] {
            let drawn = terminal(&chart, width, height, signs);
            prop_assert!(drawn.lines().count() < 220);
        }
        prop_assert!(svg(&chart, width as u32, height as u32).ends_with("</svg>\n"));
        let picture = raster(&chart, width as u32, height as u32);
        prop_assert_eq!(picture.pixels.len(), picture.width * picture.height);
        prop_assert!(picture.pixels.iter().all(|p| usize::from(*p) < PALETTE.len()));
    }
}
