//! Charts as files: PNG (ISO/IEC 15948) of few colours, and a script that draws
//! the same with matplotlib. Names out of logs are data in all of them.

use std::io::Write as _;

use curves::view::draw::{Chart, PALETTE, Picture};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::numbers;

/// The bytes of a PNG file.
pub(super) fn png(picture: &Picture) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let size = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
    // Eight bits a pixel, which are numbers of the palette.
    let head = [&size(picture.width)[..], &size(picture.height), &[8, 3, 0, 0, 0]].concat();
    chunk(&mut out, *b"IHDR", &head);
    chunk(&mut out, *b"PLTE", &PALETTE.concat());
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    for row in picture.pixels.chunks(picture.width.max(1)) {
        // Writing to memory cannot fail. No filter: neighbours are mostly equal.
        let _ = packed.write_all(&[0]).and_then(|()| packed.write_all(row));
    }
    chunk(&mut out, *b"IDAT", &packed.finish().unwrap_or_default());
    chunk(&mut out, *b"IEND", &[]);
    out
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    let begin = out.len();
    out.extend(kind);
    out.extend(data);
    let checksum = crc32fast::hash(out.get(begin..).unwrap_or_default());
    out.extend(checksum.to_be_bytes());
}

/// A Python script that draws the chart with matplotlib; its data are in it.
pub(super) fn script(chart: &Chart) -> String {
    let mut out = String::from(
        "#!/usr/bin/env python3\n# Draws curves with matplotlib. The data stand below; names are those of the log.\n\
         import sys\n\nimport matplotlib\n\nif len(sys.argv) > 1:\n    matplotlib.use(\"Agg\")\nimport matplotlib.pyplot as plt\n\n\
         nan, inf = float(\"nan\"), float(\"inf\")\nlines = [\n",
    );
    for line in &chart.lines {
        let places: Vec<String> = line.points.iter().map(|p| p.0.to_string()).collect();
        let values: Vec<String> = line.points.iter().map(|p| numbers::full(p.1).to_lowercase()).collect();
        out.push_str(&format!(
            "    ({}, [{}], [{}]),\n",
            python(&line.name),
            places.join(", "),
            values.join(", ")
        ));
    }
    out.push_str("]\nmarks = [\n");
    for mark in &chart.marks {
        out.push_str(&format!("    ({}, {}),\n", mark.place, python(&mark.text)));
    }
    out.push_str(&format!(
        "]\n\nfigure, axes = plt.subplots(figsize=(10, 5.5))\nfor name, places, values in lines:\n    \
         axes.plot(places, values, linewidth=1.2, label=name.replace(\"$\", r\"\\$\"))\n\
         for place, text in marks:\n    axes.axvline(place, color=\"#b00020\", linestyle=\"--\", linewidth=0.8)\n\
         axes.set_title({}.replace(\"$\", r\"\\$\"))\naxes.set_xlabel({})\n{}axes.grid(alpha=0.3)\naxes.legend()\nfigure.tight_layout()\n\
         if len(sys.argv) > 1:\n    figure.savefig(sys.argv[1], dpi=150)\nelse:\n    plt.show()\n",
        python(&chart.title),
        python(&chart.places),
        if chart.log { "axes.set_yscale(\"log\")\n" } else { "" }
    ));
    out
}

/// A string literal of Python, in ASCII.
fn python(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_png_holds_the_pixels() {
        let picture = Picture { width: 3, height: 2, pixels: vec![0, 1, 2, 3, 4, 11] };
        let bytes = png(&picture);
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(&[0xae, 0x42, 0x60, 0x82]));
        let at = bytes.windows(4).position(|four| four == b"IDAT").unwrap();
        let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&bytes[at + 4..at + 4 + length]).read_to_end(&mut rows).unwrap();
        assert_eq!(rows, [0, 0, 1, 2, 0, 3, 4, 11]);
    }

    #[test]
    fn names_stay_strings_of_python() {
        assert_eq!(python("a\"\\\n\u{1f600}"), "\"a\\\"\\\\\\U0000000a\\U0001f600\"");
    }
}
