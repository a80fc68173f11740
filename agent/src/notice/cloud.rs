//! In which cloud this machine is, as its firmware says: no service is asked
//! for that, so that a machine at home never looks for one.

use std::path::Path;

use lifecycle::spec::NoticeSource;

use crate::os;

/// A cloud with a metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon's.
    Ec2,
    /// Google's.
    Gce,
    /// Microsoft's.
    Azure,
}

/// Azure writes this on every machine of its own.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
const DMI: &str = "/sys/class/dmi/id";

impl Cloud {
    /// The one whose service is asked.
    #[must_use]
    pub fn wanted(source: NoticeSource) -> Option<Self> {
        match source {
            NoticeSource::Auto => Self::here(Path::new(DMI)),
            NoticeSource::Ec2 => Some(Self::Ec2),
            NoticeSource::Gce => Some(Self::Gce),
            NoticeSource::Azure => Some(Self::Azure),
            NoticeSource::None => None,
        }
    }

    fn here(dmi: &Path) -> Option<Self> {
        let read = |name: &str| {
            let bytes = os::read_bounded(&dmi.join(name), 256).unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        Self::of(&read("sys_vendor"), &read("product_name"), &read("chassis_asset_tag"))
    }

    /// From what the firmware says.
    fn of(vendor: &str, product: &str, tag: &str) -> Option<Self> {
        match (vendor, product, tag) {
            ("Amazon EC2", ..) => Some(Self::Ec2),
            ("Google", ..) | (_, "Google Compute Engine", _) => Some(Self::Gce),
            (_, _, AZURE_TAG) => Some(Self::Azure),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_no_cloud_is_in_none() {
        assert_eq!(Cloud::of("Amazon EC2", "p5.48xlarge", "Amazon EC2"), Some(Cloud::Ec2));
        assert_eq!(Cloud::of("Google", "Google Compute Engine", ""), Some(Cloud::Gce));
        assert_eq!(Cloud::of("Microsoft Corporation", "Virtual Machine", AZURE_TAG), Some(Cloud::Azure));
        // Hyper-V at home.
        assert_eq!(Cloud::of("Microsoft Corporation", "Virtual Machine", "0000"), None);
        assert_eq!(Cloud::of("QEMU", "Standard PC", ""), None);
        assert_eq!(Cloud::here(Path::new("/nowhere")), None);
    }
}
