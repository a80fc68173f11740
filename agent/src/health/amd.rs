//! AMD GPUs through the files of the amdgpu driver (`/sys/class/drm/card*/device`,
//! kernel documentation "amdgpu"). Never waits on a tool; a file that is missing
//! is a figure that is missing.

use std::path::{Path, PathBuf};

use proto::v1;

use crate::os;

/// How often the machine is searched for GPUs: they come with the driver.
const LOOK_EVERY_MS: u64 = 300_000;
const GPUS_MAX: usize = 64;
const AMD: &str = "0x1002";
const MICRO: f64 = 1e6;
const MILLI: f64 = 1e3;

/// The GPUs that were found, each by the directory of its device.
#[derive(Debug)]
pub(super) struct Amd {
    root: PathBuf,
    looked_ms: Option<u64>,
    cards: Vec<Card>,
}

#[derive(Debug)]
struct Card {
    device: PathBuf,
    sensors: Option<PathBuf>,
    name: String,
    uuid: String,
}

impl Amd {
    /// `sys` is where sysfs is mounted.
    pub(super) fn new(sys: &Path) -> Self {
        Self { root: sys.join("class/drm"), looked_ms: None, cards: Vec::new() }
    }

    /// The GPUs now, numbered from `first` on.
    pub(super) fn sample(&mut self, now_ms: u64, first: u32) -> Vec<v1::Gpu> {
        if self.looked_ms.is_none_or(|at| now_ms.saturating_sub(at) >= LOOK_EVERY_MS) {
            self.looked_ms = Some(now_ms);
            self.cards = find(&self.root);
        }
        (first..).zip(&self.cards).map(|(index, card)| card.read(index)).collect()
    }
}

fn find(root: &Path) -> Vec<Card> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut numbers: Vec<u32> = entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.strip_prefix("card")?.parse().ok())
        .take(4 * GPUS_MAX)
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(|n| card(&root.join(format!("card{n}/device")))).take(GPUS_MAX).collect()
}

fn card(device: &Path) -> Option<Card> {
    if text(&device.join("vendor"))? != AMD {
        return None;
    }
    let sensors = std::fs::read_dir(device.join("hwmon")).ok().and_then(|d| Some(d.flatten().next()?.path()));
    let name = text(&device.join("product_name"))
        .or_else(|| Some(format!("AMD GPU {}", text(&device.join("device"))?)))
        .unwrap_or_else(|| "AMD GPU".to_owned());
    let uuid = text(&device.join("unique_id")).unwrap_or_default();
    Some(Card { device: device.to_path_buf(), sensors, name, uuid })
}

impl Card {
    fn read(&self, index: u32) -> v1::Gpu {
        let number = |file: &str| text(&self.device.join(file))?.parse::<u64>().ok();
        let sensor = |file: &str, unit: f64| {
            let value: f64 = text(&self.sensors.as_ref()?.join(file))?.parse().ok()?;
            (0.0..1e12).contains(&value).then_some(value / unit)
        };
        let busy = number("gpu_busy_percent").and_then(|b| u8::try_from(b).ok()).filter(|b| *b <= 100);
        v1::Gpu {
            index,
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            driver: "amdgpu".to_owned(),
            utilization_percent: busy.map(f64::from),
            memory_total_bytes: number("mem_info_vram_total"),
            memory_used_bytes: number("mem_info_vram_used"),
            // Older chips give an average, newer ones what it is now.
            power_watts: sensor("power1_average", MICRO).or_else(|| sensor("power1_input", MICRO)),
            power_limit_watts: sensor("power1_cap", MICRO),
            temperature_celsius: sensor("temp1_input", MILLI),
            throttle: Vec::new(),
            ecc_corrected: None,
            ecc_uncorrected: None,
            xids: Vec::new(),
        }
    }
}

fn text(path: &Path) -> Option<String> {
    let bytes = os::read_bounded(path, 4096).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(96).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_driver_are_a_gpu_and_missing_ones_are_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join("class/drm").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("card0/device/vendor", "0x10de\n");
        write("card1/device/vendor", "0x1002\n");
        write("card1/device/device", "0x740f\n");
        write("card1/device/unique_id", "ba4de0e5d4c3e1a9\n");
        write("card1/device/gpu_busy_percent", "87\n");
        write("card1/device/mem_info_vram_total", "68702699520\n");
        write("card1/device/mem_info_vram_used", "1024\n");
        write("card1/device/hwmon/hwmon4/temp1_input", "64000\n");
        write("card1/device/hwmon/hwmon4/power1_average", "310000000\n");
        write("card1/device/hwmon/hwmon4/power1_cap", "560000000\n");
        write("card1-DP-1/status", "connected\n");
        write("card10/device/vendor", "0x1002\n");
        write("card10/device/gpu_busy_percent", "300\n");
        write("card10/device/mem_info_vram_total", "-5\n");
        let gpus = Amd::new(dir.path()).sample(1, 2);
        assert_eq!(gpus.len(), 2);
        let gpu = &gpus[0];
        assert_eq!(
            (gpu.index, gpu.name.as_str(), gpu.uuid.as_str()),
            (2, "AMD GPU 0x740f", "ba4de0e5d4c3e1a9")
        );
        assert_eq!((gpu.utilization_percent, gpu.temperature_celsius), (Some(87.0), Some(64.0)));
        assert_eq!((gpu.power_watts, gpu.power_limit_watts), (Some(310.0), Some(560.0)));
        assert_eq!((gpu.memory_total_bytes, gpu.memory_used_bytes), (Some(68_702_699_520), Some(1024)));
        assert_eq!((gpus[1].index, gpus[1].utilization_percent, gpus[1].memory_total_bytes), (3, None, None));
        assert!(Amd::new(Path::new("/nonexistent")).sample(1, 0).is_empty());
    }
}
