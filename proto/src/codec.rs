//! How messages are coded: as the protobuf library does, with small buffers. The
//! library sets aside 8 KiB for each direction of each call for as long as it
//! lasts, and an agent's call lasts as long as its machine; what needs more
//! grows as it always did. It changes no byte on the wire.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// A lease's question and its answer fit in.
const SMALL: usize = 512;
/// As the library has it: so much is gathered before it is sent.
const YIELD: usize = 32 << 10;

/// Codes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct LeanCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LeanCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(SMALL, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(SMALL, YIELD))
    }
}
