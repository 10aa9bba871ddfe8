//! How our own messages become bytes: as prost writes them, in buffers that begin small. A stream keeps one for each
//! direction as long as it lives, and most of what goes over it has some hundred bytes.
//!
//! Knows no message.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Where a buffer begins, bytes; it grows with what comes. A question and its answer fit.
const BEGIN: usize = 512;
/// Messages that wait together are handed on when they have so many bytes: as the library does.
const TOGETHER: usize = 32 * 1024;

/// What generated services write and read messages with.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BEGIN, TOGETHER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BEGIN, TOGETHER))
    }
}
