//! Patches out of stored tiles: each tile's part is decoded to its place in the patch, or averaged into it row by row.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::area::{Averager, Place};
use crate::jpeg::{Decoder, Part, Stream};

const WHITE: u8 = 255;
const SOI: [u8; 2] = [0xff, 0xd8];
const APP0: [u8; 2] = [0xff, 0xe0];

/// A tile's part of a patch, and where it goes in the region: the column and row of its first pixel.
pub struct Tile<'a> {
    pub data: &'a [u8], // none: the file leaves this tile out, it is white
    pub head: &'a [u8],
    pub is_rgb: bool,
    pub part: Part,
    pub column: usize,
    pub row: usize,
}

impl<'a> Tile<'a> {
    /// Whether the part lies in a region of `edge` pixels.
    pub fn fits(&self, edge: usize) -> bool {
        self.part.is_sound() && self.column + self.part.width as usize <= edge && self.row + self.part.height as usize <= edge
    }

    fn place(&self) -> Place {
        Place { column: self.column, row: self.row, width: self.part.width as usize, height: self.part.height as usize }
    }

    /// The head first, in place of the tile's own start; a JFIF marker would win over the head's word that the tile is RGB.
    fn stream(&self) -> Stream<'a> {
        if self.head == SOI {
            return Stream { head: self.data, body: &[] };
        }
        let body = self.data.get(2..).unwrap_or_default();
        let jfif = if self.is_rgb && body.starts_with(&APP0) { jfif_size(body) } else { 0 };
        Stream { head: self.head, body: body.get(jfif..).unwrap_or_default() }
    }
}

fn jfif_size(body: &[u8]) -> usize {
    let length = |at| usize::from(*body.get(at).unwrap_or(&0));
    2 + (length(2) << 8) + length(3)
}

/// A patch: `out`, square RGB of `size` pixels, out of a square region of `edge` pixels of a level.
pub struct Job<'a> {
    pub out: &'a mut [u8],
    pub size: usize,
    pub edge: usize,
    pub tiles: Vec<Tile<'a>>,
}

/// What became of some jobs, and the time that it took.
#[derive(Default)]
pub struct Outcome {
    pub painted: Vec<bool>,
    pub spent: Duration,
}

#[derive(Default)]
struct Kept {
    decoder: Option<Decoder>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Paint jobs one after the other; one that panics, which none should, counts as not painted.
pub fn paint(jobs: Vec<Job>) -> Outcome {
    let mut outcome = Outcome::default();
    for mut job in jobs {
        let painted = catch_unwind(AssertUnwindSafe(|| KEPT.with_borrow_mut(|kept| paint_one(kept, &mut job, &mut outcome))));
        outcome.painted.push(painted.unwrap_or(false));
    }
    outcome
}

fn paint_one(kept: &mut Kept, job: &mut Job, outcome: &mut Outcome) -> bool {
    let start = Instant::now();
    let Some(decoder) = kept.decoder.take().or_else(Decoder::new) else { return false };
    let decoder = kept.decoder.insert(decoder);
    if job.edge == job.size {
        let painted = decode(decoder, &job.tiles, job.edge, job.out);
        outcome.spent += start.elapsed();
        return painted;
    }
    let painted = average(decoder, job);
    outcome.spent += start.elapsed();
    painted
}

fn decode(decoder: &mut Decoder, tiles: &[Tile], edge: usize, region: &mut [u8]) -> bool {
    tiles.iter().all(|tile| {
        let (offset, pitch) = ((tile.row * edge + tile.column) * 3, edge * 3);
        if tile.data.is_empty() {
            let width = tile.part.width as usize * 3;
            (0..tile.part.height as usize).for_each(|y| region[offset + y * pitch..][..width].fill(WHITE));
            return true;
        }
        decoder.decode(tile.stream(), tile.part, region, offset, pitch)
    })
}

fn average(decoder: &mut Decoder, job: &mut Job) -> bool {
    let mut averager = Averager::new(job.out, job.size, job.edge / job.size, job.tiles.iter().map(Tile::place));
    let painted = job.tiles.iter().all(|tile| {
        averager.begin(tile.place());
        if tile.data.is_empty() {
            let row = vec![WHITE; tile.part.width as usize * 3];
            (0..tile.part.height).for_each(|_| averager.take(&row, 0, 1));
            return true;
        }
        decoder.decode_into(tile.stream(), tile.part, &mut averager)
    });
    averager.finish();
    painted
}
