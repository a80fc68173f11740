//! Bytes of a program to what a terminal would make of them: text, ends of
//! lines, colours. Sequences that command a terminal are swallowed, those that
//! never end too, but only up to the end of their line: nothing that comes
//! later can be hidden by them. May be fed byte by byte.

/// Bytes of a control sequence that are looked at.
const PARAMETERS: usize = 64;
/// Bytes of a string (title, clipboard, picture) that are swallowed.
const STRING: usize = 1 << 20;

/// What some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A character that can be shown.
    Text(char),
    /// A byte that is no text.
    Odd(u8),
    /// A character that would be obeyed, or is not what it looks like.
    OddChar(char),
    /// `\n`
    NewLine,
    /// `\r`
    Return,
    /// Backspace.
    Back,
    /// Tab.
    Tab,
    /// Colours from here on, parameters of SGR; empty resets them.
    Mark(&'a str),
    /// Erase from the cursor to the end of the line.
    EraseRight,
    /// Erase up to the cursor.
    EraseLeft,
    /// Erase the line.
    EraseLine,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate: one more byte.
    Intermediate,
    /// Within CSI.
    Control,
    /// Within OSC, DCS, APC, PM or SOS: so many bytes were swallowed.
    String(usize),
    /// ESC within a string.
    StringEscape,
}

/// Remembers what is not whole yet.
#[derive(Debug, Default)]
pub struct Parser {
    state: State,
    parameters: Vec<u8>,
    /// The beginning of a character of several bytes.
    character: Vec<u8>,
}

type Give<'g> = &'g mut dyn FnMut(Part<'_>);

impl Parser {
    /// Takes bytes and gives what they are.
    pub fn feed(&mut self, bytes: &[u8], give: Give<'_>) {
        for byte in bytes {
            self.byte(*byte, give);
        }
    }

    /// Nothing more will come: a character that is not whole is spelt out.
    pub fn finish(&mut self, give: Give<'_>) {
        for byte in std::mem::take(&mut self.character) {
            give(Part::Odd(byte));
        }
        self.state = State::Ground;
    }

    fn byte(&mut self, byte: u8, give: Give<'_>) {
        // These end any sequence, so that none can hide what follows.
        match byte {
            b'\n' if self.state != State::Ground => self.state = State::Ground,
            0x18 | 0x1a if self.state != State::Ground => {
                self.state = State::Ground;
                return;
            }
            _ => {}
        }
        match self.state {
            State::Ground => self.ground(byte, give),
            State::Escape => self.state = after_escape(byte, &mut self.parameters),
            State::Intermediate => {
                if !(0x20..=0x2f).contains(&byte) {
                    self.state = State::Ground;
                }
            }
            State::Control => self.control(byte, give),
            State::String(_) if byte == 0x1b => self.state = State::StringEscape,
            State::String(_) if byte == 0x07 => self.state = State::Ground,
            State::String(count) if count < STRING => self.state = State::String(count + 1),
            State::String(_) => self.state = State::Ground,
            State::StringEscape if byte == b'\\' => self.state = State::Ground,
            // Any other escape ends the string and is one of its own.
            State::StringEscape => self.state = after_escape(byte, &mut self.parameters),
        }
    }

    fn ground(&mut self, byte: u8, give: Give<'_>) {
        if !self.character.is_empty() {
            if self.go_on(byte, give) {
                return;
            }
            for odd in std::mem::take(&mut self.character) {
                give(Part::Odd(odd));
            }
        }
        match byte {
            b'\n' => give(Part::NewLine),
            b'\r' => give(Part::Return),
            b'\t' => give(Part::Tab),
            0x08 => give(Part::Back),
            0x1b => self.state = State::Escape,
            0x20..=0x7e => give(Part::Text(char::from(byte))),
            0xc2..=0xf4 => self.character.push(byte),
            _ => give(Part::Odd(byte)),
        }
    }

    /// Whether the byte goes on with the character that has begun.
    fn go_on(&mut self, byte: u8, give: Give<'_>) -> bool {
        if !(0x80..=0xbf).contains(&byte) {
            return false;
        }
        self.character.push(byte);
        match std::str::from_utf8(&self.character) {
            Ok(text) => {
                if let Some(c) = text.chars().next() {
                    give(if is_odd(c) { Part::OddChar(c) } else { Part::Text(c) });
                }
                self.character.clear();
                true
            }
            Err(error) if error.error_len().is_none() => true,
            Err(_) => {
                self.character.pop();
                false
            }
        }
    }

    fn control(&mut self, byte: u8, give: Give<'_>) {
        match byte {
            0x20..=0x3f if self.parameters.len() < PARAMETERS => self.parameters.push(byte),
            // Too long to mean anything: swallowed to its end all the same.
            0x20..=0x3f => {}
            0x1b => self.state = State::Escape,
            0x40..=0x7e => {
                self.state = State::Ground;
                let whole = self.parameters.len() < PARAMETERS;
                match (byte, self.parameters.as_slice()) {
                    (b'm', parameters) if whole => colours(parameters, give),
                    (b'K', b"" | b"0") => give(Part::EraseRight),
                    (b'K', b"1") => give(Part::EraseLeft),
                    (b'K', b"2") => give(Part::EraseLine),
                    _ => {}
                }
            }
            // A control character within a sequence is obeyed by terminals;
            // here it ends the sequence.
            _ => {
                self.state = State::Ground;
                self.ground(byte, give);
            }
        }
    }
}

fn after_escape(byte: u8, parameters: &mut Vec<u8>) -> State {
    match byte {
        b'[' => {
            parameters.clear();
            State::Control
        }
        b']' | b'P' | b'_' | b'^' | b'X' => State::String(0),
        0x20..=0x2f => State::Intermediate,
        0x1b => State::Escape,
        _ => State::Ground,
    }
}

/// The colours of an SGR sequence, without what hides text (8), and reset
/// where it resets.
fn colours(parameters: &[u8], give: Give<'_>) {
    let Ok(text) = std::str::from_utf8(parameters) else { return };
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':') {
        return;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut fields = text.split(';');
    while let Some(field) = fields.next() {
        match field {
            "" | "0" | "00" => {
                kept.clear();
                give(Part::Mark(""));
            }
            "8" | "08" => {}
            // A colour by number or by parts: what follows belongs to it.
            "38" | "48" | "58" => {
                kept.push(field);
                let kind = fields.next();
                let count = match kind {
                    Some("5") => 1,
                    Some("2") => 3,
                    _ => 0,
                };
                kept.extend(kind);
                kept.extend(fields.by_ref().take(count));
            }
            _ => kept.push(field),
        }
    }
    if !kept.is_empty() {
        give(Part::Mark(&kept.join(";")));
    }
}

/// Whether a character is obeyed by terminals, or turns the direction of text.
fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}
