//! The captured bytes of one feed, as the parser walks over them: either only
//! read, or overwritten in place with their masked form.
//!
//! The parser steps on the masked form of each byte in both cases, which is why
//! masked bytes give the same messages as the original ones. This file decides
//! nothing about what is private.

/// The captured bytes of one feed.
pub(super) enum Canvas<'a> {
    /// Only read.
    Read(&'a [u8]),
    /// Masked in place.
    Mask {
        /// The bytes; those before the parser's position are masked already.
        bytes: &'a mut [u8],
        /// Bytes up to and including the last one worth storing.
        kept: usize,
    },
}

impl Canvas<'_> {
    /// Captured bytes.
    pub(super) fn len(&self) -> usize {
        self.rest(0).len()
    }

    /// The bytes from `position` on, not yet masked.
    pub(super) fn rest(&self, position: usize) -> &[u8] {
        match self {
            Canvas::Read(bytes) => bytes.get(position..).unwrap_or(&[]),
            Canvas::Mask { bytes, .. } => bytes.get(position..).unwrap_or(&[]),
        }
    }

    /// The byte at `position` is worth storing, in this form.
    pub(super) fn keep(&mut self, position: usize, masked: u8) {
        if let Canvas::Mask { bytes, kept } = self
            && let Some(byte) = bytes.get_mut(position)
        {
            *byte = masked;
            *kept = position + 1;
        }
    }

    /// The bytes of this range are content: zeros, not worth storing if nothing
    /// that is follows.
    pub(super) fn drop_range(&mut self, from: usize, to: usize) {
        if let Canvas::Mask { bytes, .. } = self
            && let Some(content) = bytes.get_mut(from..to)
        {
            content.fill(0);
        }
    }
}
