//! What the tool of each driver prints, recorded, and hostile fields.

use proptest::prelude::*;

use super::*;

fn recorded(driver: &str) -> Vec<Reading> {
    let path = format!("{}/src/health/recorded/nvidia-{driver}.txt", env!("CARGO_MANIFEST_DIR"));
    Query::new().read(&std::fs::read_to_string(path).unwrap())
}

const MIB: u64 = 1 << 20;

#[test]
fn every_driver_generation_is_read() {
    for (driver, count) in [
        ("450", 3),
        ("470", 2),
        ("525", 2),
        ("535", 8),
        ("550", 2),
        ("560", 1),
        ("570", 2),
        ("590", 4),
        ("595", 1),
        ("610", 1),
    ] {
        let read = recorded(driver);
        assert_eq!(read.len(), count, "{driver}");
        for (index, r) in (0..).zip(&read) {
            assert_eq!(r.gpu.index, index, "{driver}");
            assert!(r.gpu.driver.starts_with(driver) && r.gpu.uuid.starts_with("GPU-"), "{driver}: {r:?}");
            assert!(
                r.gpu.memory_total_bytes.unwrap() >= 8192 * MIB && r.pci.starts_with("00000000:"),
                "{r:?}"
            );
            assert!(r.gpu.name.contains(['A', 'H', 'R', 'T']) && !r.gpu.name.contains(','), "{r:?}");
        }
    }
}

#[test]
fn figures_of_a_busy_gpu() {
    let gpu = &recorded("450")[0].gpu;
    assert_eq!(gpu.name, "Tesla V100-SXM2-16GB");
    assert_eq!((gpu.utilization_percent, gpu.temperature_celsius), (Some(98.0), Some(64.0)));
    assert_eq!((gpu.memory_total_bytes, gpu.memory_used_bytes), (Some(16160 * MIB), Some(15109 * MIB)));
    assert_eq!((gpu.power_watts, gpu.power_limit_watts), (Some(287.43), Some(300.0)));
    assert_eq!((gpu.ecc_corrected, gpu.ecc_uncorrected), (Some(0), Some(0)));
    assert_eq!(gpu.throttle, ["sw-power-cap"]);
    assert!(recorded("450")[1].gpu.throttle.is_empty(), "an idle GPU is not throttled");
}

#[test]
fn words_in_place_of_numbers_are_gaps() {
    let old = &recorded("450")[2].gpu;
    assert_eq!((old.utilization_percent, old.power_watts, old.ecc_corrected), (None, None, None));
    assert_eq!((old.memory_used_bytes, old.temperature_celsius), (Some(3 * MIB), Some(35.0)));
    let unknown = &recorded("470")[1];
    assert_eq!(
        (unknown.gpu.memory_used_bytes, unknown.gpu.temperature_celsius, unknown.fault),
        (None, None, None)
    );
    let mig = &recorded("525")[0].gpu;
    assert_eq!((mig.utilization_percent, mig.memory_used_bytes), (None, Some(39210 * MIB)));
    let err = &recorded("570")[1].gpu;
    assert_eq!(
        (err.power_watts, err.temperature_celsius, err.memory_used_bytes),
        (None, None, Some(58222 * MIB))
    );
}

#[test]
fn faults_heat_and_memory_errors_are_seen() {
    let read = recorded("535");
    assert_eq!(read[6].fault, None);
    assert_eq!(read[7].fault, Some("it requires a reset"));
    let hot = &recorded("550")[1].gpu;
    assert_eq!(hot.throttle, ["hw-slowdown", "sw-thermal", "hw-thermal"]);
    assert_eq!((hot.ecc_corrected, hot.ecc_uncorrected), (Some(7), Some(1)));
}

#[test]
fn units_are_read_over() {
    let gpu = &recorded("590")[3].gpu;
    assert_eq!((gpu.utilization_percent, gpu.memory_used_bytes), (Some(100.0), Some(19818 * MIB)));
    assert_eq!(gpu.power_watts, Some(631.95));
}

#[test]
fn a_field_that_the_driver_does_not_know_is_asked_for_by_its_other_name_then_not_at_all() {
    let mut query = Query::new();
    let throttle = "Field \"clocks_throttle_reasons.active\" is not a valid field to query.\n\n";
    assert!(query.arguments()[0].contains("clocks_throttle_reasons.active"));
    assert!(query.refuse(throttle));
    assert!(query.arguments()[0].contains("clocks_event_reasons.active,name"));
    assert!(!query.refuse(throttle), "it is not asked for any more");
    assert!(query.refuse("Field \"clocks_event_reasons.active\" is not a valid field to query.\n"));
    assert!(!query.arguments()[0].contains("clocks"));
    let line = "0, GPU-1, 460.1, 00000000:01:00.0, 5, 100, 50, 10.5, 20, 30, 0, 0, Tesla T4";
    assert_eq!(query.read(line)[0].gpu.name, "Tesla T4");
    assert!(!query.refuse("Field \"name of another\" is not a valid field to query.\n"));
    assert!(!Query::new().refuse("0, GPU-1"));
}

#[test]
fn a_name_may_hold_a_comma_and_a_message_is_no_gpu() {
    let text = "Warning: infoROM is corrupted at gpu 0000:01:00.0\n\
                0, GPU-1, 550.1, 00000000:01:00.0, 5, 100, 50, 10, 20, 30, 0, 0, 0x0, NVIDIA X, big\n\
                0, GPU-2, 550.1, 00000000:01:00.0, 5, 100, 50, 10, 20, 30, 0, 0, 0x0, the same index\n\
                x, GPU-3, 550.1, 00000000:01:00.0, 5, 100, 50, 10, 20, 30, 0, 0, 0x0, no index\n";
    let read = Query::new().read(text);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].gpu.name.as_str(), read[0].gpu.uuid.as_str()), ("NVIDIA X, big", "GPU-1"));
}

#[test]
fn messages_are_told_as_what_they_mean() {
    let gone = "Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  Reboot the system to \
                recover this GPU\n";
    assert!(lost(gone).unwrap().contains("0000:02:00.0"));
    assert_eq!(lost("0, GPU-1"), None);
    let no_driver =
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that\n";
    assert!(failure(Some(9), no_driver).starts_with("nvidia-smi ended with 9: NVIDIA-SMI has failed"));
    assert_eq!(failure(Some(6), "No devices were found\n"), "");
    assert!(failure(Some(0), "").contains("nothing"));
    assert!(failure(None, &"x".repeat(100_000)).len() < 300);
}

proptest! {
    #[test]
    fn no_output_makes_it_fail(text in "(?s).{0,600}", code in any::<Option<i32>>()) {
        let mut query = Query::new();
        query.refuse(&text);
        let _ = (query.read(&text), failure(code, &text), lost(&text));
    }

    #[test]
    fn hostile_fields_give_sane_figures(
        fields in proptest::collection::vec("-?[0-9]{0,22}(\\.[0-9]{1,4})?( W| %)?|\\[N/A\\]|0x[0-9a-f]{0,20}|inf|NaN|1e999", 13),
        name in ".{0,300}",
    ) {
        let line = format!("{}, {name}", fields.join(", "));
        for r in Query::new().read(&line) {
            prop_assert!(r.gpu.utilization_percent.is_none_or(|u| (0.0..=100.0).contains(&u)));
            prop_assert!(r.gpu.power_watts.is_none_or(|p| (0.0..1e6).contains(&p)));
            prop_assert!(r.gpu.temperature_celsius.is_none_or(|t| (0.0..300.0).contains(&t)));
            prop_assert!(r.gpu.name.chars().count() <= NAME_MAX && r.gpu.throttle.len() <= REASONS.len());
        }
    }

    #[test]
    fn any_number_of_gpus_is_bounded(count in 0_u32..600) {
        let text: String = (0..count)
            .map(|i| format!("{i}, GPU-{i}, 5, 0:1:0.0, 5, 100, 50, 10, 20, 30, 0, 0, 0x0, N\n"))
            .collect();
        prop_assert_eq!(Query::new().read(&text).len(), usize::try_from(count).unwrap().min(GPUS_MAX));
    }
}
