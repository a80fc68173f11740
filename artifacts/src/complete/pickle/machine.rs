//! The stack machine of pickles, following only what tells of raw bytes. It
//! runs nothing, makes nothing that grows with a hostile file, and where it
//! loses the thread it says so instead of guessing.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;

use super::source::Source;
use super::value::{Dtype, FEW, Raw, Value, raw_of, storage_element};
use super::{End, cut};

/// Values on the stack; beyond this the thread is lost, not the file.
const DEEPEST: usize = 1 << 18;
/// Values remembered; what comes later is opaque.
const MEMO: usize = 200_000;
/// Bytes of a name that is followed.
const NAME: usize = 64;
/// Values within tuples, over all of a pickle: with more the thread is lost.
const HELD: usize = 1 << 20;
/// Pickles within arrays within pickles.
const NESTED: usize = 16;
/// Storages of one file.
const STORAGES: usize = 1 << 20;
/// Entries of mappings that are followed in one pickle, over all of them.
const ENTRIES: usize = 1 << 18;

pub(super) struct Machine<'m, 'f> {
    source: &'m mut Source<'f>,
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    memoized: u64,
    depth: usize,
    entries: usize,
    held: usize,
    /// Storages of PyTorch that were referred to, and their bytes.
    pub(super) storages: BTreeMap<String, u64>,
    /// One of them has an element type that is not known here.
    pub(super) has_strange_storages: bool,
}

/// What one opcode did.
enum Step {
    On,
    Stop,
    /// It is none.
    Strange,
    /// How many raw bytes follow is not known here.
    Lost,
}

impl<'m, 'f> Machine<'m, 'f> {
    pub(super) fn new(source: &'m mut Source<'f>, depth: usize) -> Self {
        Self {
            source,
            stack: Vec::new(),
            memo: HashMap::new(),
            memoized: 0,
            depth,
            entries: 0,
            held: 0,
            storages: BTreeMap::new(),
            has_strange_storages: false,
        }
    }

    /// Walks one pickle through its STOP.
    pub(super) fn walk(&mut self) -> io::Result<End> {
        loop {
            if self.stack.len() > DEEPEST || self.held > HELD {
                return Ok(End::Lost);
            }
            match self.step() {
                Ok(Step::On) => {}
                Ok(Step::Stop) => return Ok(End::Stop),
                Ok(Step::Strange) => return Ok(End::Strange),
                Ok(Step::Lost) => return Ok(End::Lost),
                Err(error) => return cut(error),
            }
        }
    }

    fn step(&mut self) -> io::Result<Step> {
        let code = self.source.byte()?;
        match code {
            b'.' => return Ok(Step::Stop),
            b'(' => self.stack.push(Value::Mark),
            b'0' => drop(self.stack.pop()),
            b'1' => drop(self.above_mark()),
            b'2' => self.stack.push(self.stack.last().map_or(Value::Opaque, Value::again)),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Opaque),
            b'}' => self.stack.push(Value::Dict(Vec::new())),
            b']' | 0x8f => self.stack.push(Value::Opaque),
            b')' => self.stack.push(Value::Tuple(Rc::from([]))),
            0x85..=0x87 => self.tuple(usize::from(code - 0x84)),
            b't' => {
                let items = self.above_mark();
                self.tuple_of(items);
            }
            // Lists and sets are opaque, with all that goes into them.
            b'l' | 0x91 => {
                self.above_mark();
                self.stack.push(Value::Opaque);
            }
            b'a' => drop(self.stack.pop()),
            b'e' | 0x90 => drop(self.above_mark()),
            b'd' => {
                let items = self.above_mark();
                self.stack.push(Value::Dict(Vec::new()));
                self.set(items);
            }
            b's' => {
                let items = self.take(2);
                self.set(items);
            }
            b'u' => {
                let items = self.above_mark();
                self.set(items);
            }
            b'b' => return self.build(),
            b'R' | 0x81 => self.reduce(2),
            0x92 => self.reduce(3),
            0x93 => self.global_of_stack(),
            b'o' => {
                let items = self.above_mark();
                self.stack.push(items.first().map_or(Value::Opaque, object));
            }
            b'Q' => self.persistent(),
            0x94 => {
                self.remember(self.memoized);
            }
            0x97 => self.stack.push(Value::Opaque),
            0x98 => {}
            _ => return self.with_argument(code),
        }
        Ok(Step::On)
    }

    /// Opcodes that are followed by something.
    fn with_argument(&mut self, code: u8) -> io::Result<Step> {
        match code {
            0x80 => drop(self.source.byte()?),
            0x95 => drop(self.source.number(8)?),
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => {
                let bits = self.source.number(4)? as u32;
                self.stack.push(Value::Int(i64::from(bits.cast_signed())));
            }
            b'G' => {
                self.source.skip(8)?;
                self.stack.push(Value::Opaque);
            }
            0x82..=0x84 => {
                self.source.skip([1, 2, 4][usize::from(code - 0x82)])?;
                self.stack.push(Value::Opaque);
            }
            0x8a => self.long()?,
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.bytes(1)?,
            b'B' | 0x8b => self.bytes(4)?,
            0x8e | 0x96 => self.bytes(8)?,
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'q' => {
                let index = self.source.number(1)?;
                self.remember(index);
            }
            b'r' => {
                let index = self.source.number(4)?;
                self.remember(index);
            }
            _ => return self.with_line(code),
        }
        Ok(Step::On)
    }

    /// Opcodes that are followed by lines of text.
    fn with_line(&mut self, code: u8) -> io::Result<Step> {
        match code {
            b'F' | b'L' | b'S' | b'P' => {
                self.source.line()?;
                self.stack.push(Value::Opaque);
            }
            b'I' => {
                let number = number(&self.source.line()?);
                self.stack.push(number.map_or(Value::Opaque, Value::Int));
            }
            b'V' => {
                let line = self.source.line()?;
                self.stack.push(name(&line).map_or(Value::Opaque, Value::Text));
            }
            b'g' => {
                let index = number(&self.source.line()?).map_or(u64::MAX, i64::cast_unsigned);
                self.stack.push(self.memo.get(&index).cloned().unwrap_or(Value::Opaque));
            }
            b'p' => {
                let index = number(&self.source.line()?).map_or(u64::MAX, i64::cast_unsigned);
                self.remember(index);
            }
            b'c' | b'i' => {
                let (module, class) = (self.source.line()?, self.source.line()?);
                let global = name(&module).zip(name(&class)).map(|(m, c)| Value::Global(m, c));
                let global = global.unwrap_or(Value::Opaque);
                if code == b'i' {
                    self.above_mark();
                    self.stack.push(object(&global));
                } else {
                    self.stack.push(global);
                }
            }
            _ => return Ok(Step::Strange),
        }
        Ok(Step::On)
    }

    fn int(&mut self, width: usize) -> io::Result<()> {
        let number = self.source.number(width)?;
        self.stack.push(Value::Int(number.cast_signed()));
        Ok(())
    }

    /// A long number: at most eight bytes are followed.
    fn long(&mut self) -> io::Result<()> {
        let width = usize::from(self.source.byte()?);
        if width > 8 {
            self.source.skip(width as u64)?;
            self.stack.push(Value::Opaque);
            return Ok(());
        }
        let number = self.source.number(width)?;
        let unused = 64 - 8 * width as u32;
        let signed = if width == 0 { 0 } else { (number << unused).cast_signed() >> unused };
        self.stack.push(Value::Int(signed));
        Ok(())
    }

    fn text(&mut self, width: usize) -> io::Result<()> {
        let count = self.source.number(width)?;
        let text = self.source.text(count, NAME)?;
        self.stack.push(text.map_or(Value::Opaque, |text| Value::Text(text.into())));
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> io::Result<()> {
        let count = self.source.number(width)?;
        self.source.skip(count)?;
        self.stack.push(Value::Opaque);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> io::Result<()> {
        let index = self.source.number(width)?;
        self.stack.push(self.memo.get(&index).cloned().unwrap_or(Value::Opaque));
        Ok(())
    }

    fn remember(&mut self, index: u64) {
        self.memoized += 1;
        let value = self.stack.last().map_or(Value::Opaque, Value::again);
        if matches!(value, Value::Opaque | Value::Mark | Value::None) || self.memo.len() >= MEMO {
            // What stood there before must not be taken for it.
            self.memo.remove(&index);
        } else {
            self.memo.insert(index, value);
        }
    }

    /// Everything above the last mark, without the mark.
    fn above_mark(&mut self) -> Vec<Value> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let items = self.stack.split_off(mark.map_or(0, |mark| mark + 1));
        self.stack.pop();
        items
    }

    fn take(&mut self, count: usize) -> Vec<Value> {
        self.stack.split_off(self.stack.len().saturating_sub(count))
    }

    fn tuple(&mut self, count: usize) {
        let items = self.take(count);
        self.tuple_of(items);
    }

    fn tuple_of(&mut self, items: Vec<Value>) {
        let tuple = small(items);
        if let Value::Tuple(items) = &tuple {
            self.held += items.len();
        }
        self.stack.push(tuple);
    }

    /// Puts pairs into the mapping on top; one that grows large is opaque.
    fn set(&mut self, items: Vec<Value>) {
        let Some(Value::Dict(entries)) = self.stack.last_mut() else { return };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if let Value::Text(key) = key
                && entries.len() < FEW
                && self.entries < ENTRIES
            {
                self.entries += 1;
                entries.push((key, value.inside()));
            }
        }
    }

    fn global_of_stack(&mut self) {
        let names = self.take(2);
        self.stack.push(match names.as_slice() {
            [Value::Text(module), Value::Text(class)] => Value::Global(module.clone(), class.clone()),
            _ => Value::Opaque,
        });
    }

    /// A call or a new object; the first of `count` values is what is called.
    fn reduce(&mut self, count: usize) {
        let called = self.take(count);
        let value = match called.as_slice() {
            [Value::Global(module, class), Value::Tuple(args), ..] => {
                let dtype = match (&**module, &**class, args.first()) {
                    ("numpy", "dtype", Some(Value::Text(name))) => Dtype::named(name),
                    _ => None,
                };
                // Protocols 0 and 1 make objects through this function.
                let made = match args.first() {
                    Some(made @ Value::Global(..)) if &**class == "_reconstructor" => object(made),
                    _ => Value::Object(module.clone(), class.clone()),
                };
                dtype.map_or(made, |dtype| Value::Dtype(dtype.into()))
            }
            _ => Value::Opaque,
        };
        self.stack.push(value);
    }

    /// Sets the state of an object. joblib reads an array's data right here.
    fn build(&mut self) -> io::Result<Step> {
        let state = self.stack.pop().unwrap_or(Value::Opaque);
        match self.stack.last() {
            Some(Value::Dtype(dtype)) => {
                if let Value::Tuple(state) = &state {
                    dtype.set(state);
                }
                Ok(Step::On)
            }
            Some(Value::Object(module, class))
                if module.starts_with("joblib.numpy_pickle") && &**class == "NumpyArrayWrapper" =>
            {
                self.stack.pop();
                self.stack.push(Value::Opaque);
                match raw_of(&state) {
                    Some(raw) => self.pass(&raw),
                    None => Ok(Step::Lost),
                }
            }
            _ => Ok(Step::On),
        }
    }

    fn pass(&mut self, raw: &Raw) -> io::Result<Step> {
        match raw {
            Raw::Bytes { bytes, padded } => {
                if *padded {
                    let padding = self.source.byte()?;
                    self.source.skip(u64::from(padding))?;
                }
                self.source.skip(*bytes)?;
                Ok(Step::On)
            }
            Raw::Pickle if self.depth < NESTED => match Machine::new(self.source, self.depth + 1).walk()? {
                End::Stop => Ok(Step::On),
                End::Strange | End::Lost => Ok(Step::Lost),
                End::Cut => Err(io::ErrorKind::UnexpectedEof.into()),
            },
            Raw::Pickle => Ok(Step::Lost),
        }
    }

    /// PyTorch refers to its storages by `("storage", class, key, place, count, view)`.
    fn persistent(&mut self) {
        if let Some(Value::Tuple(id)) = self.stack.pop()
            && let [Value::Text(what), Value::Global(_, class), Value::Text(key), _, Value::Int(count), ..] =
                &*id
            && &**what == "storage"
        {
            let count = u64::try_from(*count).ok();
            let bytes = storage_element(class).zip(count).and_then(|(each, count)| each.checked_mul(count));
            match bytes.filter(|_| self.storages.len() < STORAGES) {
                Some(bytes) => drop(self.storages.insert((**key).to_owned(), bytes)),
                None => self.has_strange_storages = true,
            }
        }
        self.stack.push(Value::Opaque);
    }
}

/// A tuple, if it is small enough to be a description.
fn small(items: Vec<Value>) -> Value {
    if items.len() > FEW {
        return Value::Opaque;
    }
    Value::Tuple(items.into_iter().map(Value::inside).collect())
}

fn object(of: &Value) -> Value {
    match of {
        Value::Global(module, class) => Value::Object(module.clone(), class.clone()),
        _ => Value::Opaque,
    }
}

fn name(line: &[u8]) -> Option<Rc<str>> {
    std::str::from_utf8(line).ok().filter(|text| text.len() <= NAME).map(Rc::from)
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.trim_end_matches('L').parse().ok()
}
