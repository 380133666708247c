//! The one scan of a tile, decoded MCU by MCU while libjpeg asks for it: whole where pixels are wanted, stepped over elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;

use crate::bits::{Bits, State, unstuff};
use crate::huffman::{Definition, Table};

const MAX_BLOCKS: usize = 10; // of an MCU (T.81, B.2.3)
const MAX_COMPONENTS: usize = 3;
const TABLES_KEPT: usize = 16; // a slide has four, and a thread has a few slides in turn

/// A block of an MCU, as the C side tells it. Tables are libjpeg's own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CBlock {
    component: u32,
    dc: *const Definition,
    ac: *const Definition,
}

/// A scan, as the C side tells it.
#[repr(C)]
pub struct CScan {
    start: *const u8,
    size: usize,
    blocks: u32,
    of: [CBlock; MAX_BLOCKS],
    columns: u32, // MCUs of a row
    count: u32,   // MCUs in all
    first: u32,   // column of MCUs of which pixels are wanted
    last: u32,
}

struct Block {
    component: usize,
    dc: Rc<Table>,
    ac: Rc<Table>,
}

/// The state of decoding a scan, and what is kept from one tile to the next.
#[derive(Default)]
pub struct Scan {
    data: Vec<u8>,
    state: State,
    blocks: Vec<Block>,
    predictions: [i32; MAX_COMPONENTS],
    columns: u32,
    column: u32,
    left: u32, // MCUs
    wanted: (u32, u32),
    dc_tables: Vec<Rc<Table>>,
    ac_tables: Vec<Rc<Table>>,
}

impl Scan {
    /// SAFETY: pointers and counts are what the C side says they are.
    unsafe fn begin(&mut self, given: &CScan) -> Option<()> {
        unstuff(unsafe { std::slice::from_raw_parts(given.start, given.size) }, &mut self.data)?;
        self.blocks.clear();
        for block in given.of.get(..given.blocks as usize)? {
            let (dc, ac) = unsafe { (block.dc.as_ref()?, block.ac.as_ref()?) };
            let component = (block.component as usize) < MAX_COMPONENTS;
            component.then_some(())?;
            let (dc, ac) = (table(&mut self.dc_tables, dc, false), table(&mut self.ac_tables, ac, true));
            self.blocks.push(Block { component: block.component as usize, dc, ac });
        }
        (self.state, self.predictions) = (State::default(), [0; MAX_COMPONENTS]);
        (self.columns, self.column, self.left, self.wanted) = (given.columns, 0, given.count, (given.first, given.last));
        Some(())
    }

    /// The next MCU into zeroed blocks, none where nobody wants it.
    fn mcu(&mut self, into: Option<&mut [[i16; 64]]>) -> Option<()> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor has BMI2, whose shifts save a sixth of the instructions.
            return unsafe { self.mcu_bmi2(into) };
        }
        self.mcu_anywhere(into)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "bmi1,bmi2")]
    fn mcu_bmi2(&mut self, into: Option<&mut [[i16; 64]]>) -> Option<()> {
        self.mcu_anywhere(into)
    }

    #[inline(always)]
    fn mcu_anywhere(&mut self, into: Option<&mut [[i16; 64]]>) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        let is_wanted = (self.wanted.0..=self.wanted.1).contains(&self.column);
        self.column = if self.column + 1 == self.columns { 0 } else { self.column + 1 };
        let mut bits = Bits::new(&self.data, self.state);
        match into {
            Some(into) if is_wanted => {
                for (block, out) in self.blocks.iter().zip(into) {
                    let prediction = &mut self.predictions[block.component];
                    *prediction += block.dc.difference(&mut bits)?;
                    out[0] = *prediction as i16;
                    block.ac.coefficients(&mut bits, out)?;
                }
            }
            _ => {
                for block in &self.blocks {
                    self.predictions[block.component] += block.dc.difference(&mut bits)?;
                    block.ac.skip(&mut bits)?;
                }
            }
        }
        self.state = bits.state();
        Some(())
    }

    /// Step over what is left; None where it is damaged, or the image does not end right behind it.
    fn finish(&mut self) -> Option<()> {
        while self.left > 0 {
            self.mcu(None)?;
        }
        Bits::new(&self.data, self.state).is_at_end().then_some(())
    }
}

/// A table out of those kept, the last used first.
fn table(kept: &mut Vec<Rc<Table>>, definition: &Definition, is_ac: bool) -> Rc<Table> {
    match kept.iter().position(|table| table.is(definition)) {
        Some(0) => {}
        Some(at) => kept[..=at].rotate_right(1),
        None => {
            kept.truncate(TABLES_KEPT - 1);
            kept.insert(0, Rc::new(Table::new(*definition, is_ac)));
        }
    }
    kept[0].clone()
}

/// A panic, which there should be none, counts as damage: it may not cross C.
fn guarded(scan: *mut Scan, work: impl FnOnce(&mut Scan) -> Option<()>) -> bool {
    // SAFETY: the C side hands back the scan that it was given.
    catch_unwind(AssertUnwindSafe(|| work(unsafe { &mut *scan }))).is_ok_and(|done| done.is_some())
}

#[unsafe(no_mangle)]
extern "C" fn patho_scan_begin(scan: *mut Scan, given: *const CScan) -> bool {
    guarded(scan, |scan| unsafe { scan.begin(&*given) })
}

#[unsafe(no_mangle)]
extern "C" fn patho_scan_mcu(scan: *mut Scan, into: *mut [i16; 64]) -> bool {
    guarded(scan, |scan| {
        let count = scan.blocks.len();
        // SAFETY: libjpeg's blocks of an MCU lie side by side.
        let into = (!into.is_null()).then(|| unsafe { &mut *ptr::slice_from_raw_parts_mut(into, count) });
        scan.mcu(into)
    })
}

#[unsafe(no_mangle)]
extern "C" fn patho_scan_finish(scan: *mut Scan) -> bool {
    guarded(scan, Scan::finish)
}
