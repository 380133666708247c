/* A part of one baseline JPEG to RGB, by libjpeg-turbo: errors come back by longjmp, which may not cross Rust's frames.
 * The entropy decoder, which takes most of the time, is ours (scan.rs); DCT, upsampling and colours are libjpeg-turbo's.
 *
 * What is decoded is equal, byte for byte, to the same part of the whole picture as TurboJPEG decodes it (accurate DCT, fancy
 * upsampling). Anything out of the ordinary, warnings included, is left to the caller: it is never half done in silence. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#define ROWS 16   /* handed to libjpeg at once */
#define MARGIN 2  /* columns: what fancy upsampling of a wanted pixel looks at, in pixels */

enum { DECODED = 0, REFUSED = 1 };

/* The start of libjpeg-turbo's private entropy decoder, in which the function is exchanged. */
struct jpeg_entropy_decoder {
  void (*start_pass)(j_decompress_ptr cinfo);
  boolean (*decode_mcu)(j_decompress_ptr cinfo, JBLOCKROW *blocks);
};
#if LIBJPEG_TURBO_VERSION_NUMBER != 3001000
#error "compare struct jpeg_entropy_decoder with this version's jpegint.h"
#endif

struct patho_part { /* in pixels; x, y, width, height lie within the tile */
  uint32_t tile_width, tile_height, x, y, width, height;
};

struct patho_bytes {
  const uint8_t *start;
  size_t size;
};

struct patho_scan {
  const uint8_t *start;
  size_t size;
  uint32_t blocks; /* of an MCU */
  struct {
    uint32_t component;
    const JHUFF_TBL *dc, *ac;
  } of[D_MAX_BLOCKS_IN_MCU];
  uint32_t columns, count; /* of MCUs */
  uint32_t first, last;    /* columns of MCUs of which pixels are wanted */
};

extern bool patho_scan_begin(void *scan, const struct patho_scan *facts);
extern bool patho_scan_mcu(void *scan, JBLOCK *blocks);
extern bool patho_scan_finish(void *scan);
extern bool patho_rows(void *averager, const uint8_t *rows, size_t pitch, size_t count, size_t width);

struct patho_jpeg {
  struct jpeg_decompress_struct cinfo; /* first: libjpeg hands only this one back */
  struct jpeg_error_mgr error;
  struct jpeg_source_mgr source;
  jmp_buf escape;
  struct patho_bytes rest; /* the tile itself, read after the head */
  void *scan;
  void *averager;          /* takes the rows, or none: they go to memory */
  uint32_t first;          /* rows that it takes first: those after these lie well for it */
  uint8_t *scratch;        /* ROWS rows of a tile */
  size_t scratch_size;
};

static void fail(j_common_ptr cinfo) { longjmp(((struct patho_jpeg *)cinfo)->escape, 1); }

/* Warnings, of which there must be none, have level -1; traces are above. */
static void note(j_common_ptr cinfo, int level) {
  if (level < 0) fail(cinfo);
}

static void nothing(j_decompress_ptr cinfo) { (void)cinfo; }

static boolean next_bytes(j_decompress_ptr cinfo) {
  struct patho_jpeg *self = (struct patho_jpeg *)cinfo;
  if (!self->rest.size) fail((j_common_ptr)cinfo); /* libjpeg would warn and invent an end */
  self->source.next_input_byte = self->rest.start;
  self->source.bytes_in_buffer = self->rest.size;
  self->rest.size = 0;
  return TRUE;
}

static void skip_bytes(j_decompress_ptr cinfo, long count) {
  struct jpeg_source_mgr *source = cinfo->src;
  if (count <= 0) return;
  while ((size_t)count > source->bytes_in_buffer) {
    count -= (long)source->bytes_in_buffer;
    next_bytes(cinfo);
  }
  source->next_input_byte += count;
  source->bytes_in_buffer -= (size_t)count;
}

static int create(struct patho_jpeg *self) {
  if (setjmp(self->escape)) return 0;
  jpeg_create_decompress(&self->cinfo);
  return 1;
}

struct patho_jpeg *patho_jpeg_new(void) {
  struct patho_jpeg *self = calloc(1, sizeof *self);
  if (!self) return NULL;
  self->cinfo.err = jpeg_std_error(&self->error);
  self->error.error_exit = fail;
  self->error.emit_message = note;
  if (!create(self)) {
    free(self);
    return NULL;
  }
  self->source.init_source = nothing;
  self->source.fill_input_buffer = next_bytes;
  self->source.skip_input_data = skip_bytes;
  self->source.resync_to_restart = jpeg_resync_to_restart;
  self->source.term_source = nothing;
  self->cinfo.src = &self->source;
  return self;
}

void patho_jpeg_free(struct patho_jpeg *self) {
  jpeg_destroy_decompress(&self->cinfo);
  free(self->scratch);
  free(self);
}

/* One scan of 8 bits in grey, YCbCr or RGB, with a usual subsampling: what slides hold. TurboJPEG refuses some of the others. */
static int is_ordinary(const struct jpeg_decompress_struct *cinfo) {
  const jpeg_component_info *of = cinfo->comp_info;
  if (cinfo->progressive_mode || cinfo->arith_code || cinfo->data_precision != 8 || cinfo->restart_interval || cinfo->comps_in_scan != cinfo->num_components) return 0;
  if (cinfo->num_components == 1) return cinfo->jpeg_color_space == JCS_GRAYSCALE && of[0].h_samp_factor == 1 && of[0].v_samp_factor == 1;
  if (cinfo->num_components != 3 || (cinfo->jpeg_color_space != JCS_YCbCr && cinfo->jpeg_color_space != JCS_RGB)) return 0;
  if (of[1].h_samp_factor * of[1].v_samp_factor * of[2].h_samp_factor * of[2].v_samp_factor != 1) return 0;
  return of[0].h_samp_factor <= 2 && of[0].v_samp_factor <= of[0].h_samp_factor;
}

static void read_rows(struct patho_jpeg *self, const struct patho_part *part, size_t skip, uint8_t *out, size_t pitch) {
  j_decompress_ptr cinfo = &self->cinfo;
  size_t row_size = (size_t)cinfo->output_width * 3, wanted = (size_t)part->width * 3;
  int straight = row_size == wanted && !self->averager;
  uint32_t done = 0;
  uint32_t limit = self->averager ? self->first : ROWS;
  while (done < part->height) {
    JSAMPROW rows[ROWS];
    uint32_t count = part->height - done < limit ? part->height - done : limit;
    for (uint32_t i = 0; i < count; i++) rows[i] = straight ? out + (done + i) * pitch : self->scratch + i * row_size;
    for (uint32_t got = 0; got < count;) got += jpeg_read_scanlines(cinfo, rows + got, count - got);
    if (self->averager) {
      if (!patho_rows(self->averager, self->scratch + skip, row_size, count, part->width)) fail((j_common_ptr)cinfo);
    } else {
      for (uint32_t i = 0; i < count && !straight; i++) memcpy(out + (done + i) * pitch, rows[i] + skip, wanted);
    }
    done += count;
    limit = ROWS;
  }
}

static boolean next_mcu(j_decompress_ptr cinfo, JBLOCKROW *blocks) {
  struct patho_jpeg *self = (struct patho_jpeg *)cinfo;
  if (!patho_scan_mcu(self->scan, blocks ? blocks[0] : NULL)) fail((j_common_ptr)cinfo); /* they lie side by side */
  return TRUE;
}

/* Have the scan decoded by scan.rs, once libjpeg has checked its tables; the columns of pixels from `left` on are wanted. */
static void take_over(struct patho_jpeg *self, uint32_t left, uint32_t width) {
  j_decompress_ptr cinfo = &self->cinfo;
  uint32_t edge = DCTSIZE * (uint32_t)cinfo->max_h_samp_factor;
  struct patho_scan facts = {.start = self->source.next_input_byte, .size = self->source.bytes_in_buffer};
  facts.blocks = (uint32_t)cinfo->blocks_in_MCU;
  for (int i = 0; i < cinfo->blocks_in_MCU; i++) {
    const jpeg_component_info *of = cinfo->cur_comp_info[cinfo->MCU_membership[i]];
    facts.of[i].component = (uint32_t)of->component_index;
    facts.of[i].dc = cinfo->dc_huff_tbl_ptrs[of->dc_tbl_no];
    facts.of[i].ac = cinfo->ac_huff_tbl_ptrs[of->ac_tbl_no];
  }
  facts.columns = cinfo->MCUs_per_row;
  facts.count = cinfo->MCUs_per_row * cinfo->MCU_rows_in_scan;
  facts.first = left / edge;
  facts.last = (left + width - 1) / edge;
  if (!patho_scan_begin(self->scan, &facts)) fail((j_common_ptr)cinfo);
  cinfo->entropy->decode_mcu = next_mcu;
}

/* libjpeg keeps tables from one picture to the next; a tile that lacks its own must not be decoded with another tile's. */
static void forget_tables(j_decompress_ptr cinfo) {
  for (int i = 0; i < NUM_QUANT_TBLS; i++)
    if (cinfo->quant_tbl_ptrs[i]) memset(cinfo->quant_tbl_ptrs[i]->quantval, 0, sizeof cinfo->quant_tbl_ptrs[i]->quantval);
  for (int i = 0; i < NUM_HUFF_TBLS; i++) {
    if (cinfo->dc_huff_tbl_ptrs[i]) memset(cinfo->dc_huff_tbl_ptrs[i], 0, sizeof *cinfo->dc_huff_tbl_ptrs[i]);
    if (cinfo->ac_huff_tbl_ptrs[i]) memset(cinfo->ac_huff_tbl_ptrs[i], 0, sizeof *cinfo->ac_huff_tbl_ptrs[i]);
  }
}

/* Forgotten Huffman tables have no codes, which scan.rs notices; forgotten quantisation tables are zero, which none can be. */
static int is_quantised(const struct jpeg_decompress_struct *cinfo) {
  for (int i = 0; i < cinfo->num_components; i++) {
    int number = cinfo->comp_info[i].quant_tbl_no; /* as the tile says, not checked by libjpeg yet */
    if (number < 0 || number >= NUM_QUANT_TBLS) return 0;
    const JQUANT_TBL *table = cinfo->quant_tbl_ptrs[number];
    if (!table || !table->quantval[0]) return 0;
  }
  return 1;
}

static int decode(struct patho_jpeg *self, const struct patho_part *part, uint8_t *out, size_t pitch) {
  j_decompress_ptr cinfo = &self->cinfo;
  forget_tables(cinfo);
  jpeg_read_header(cinfo, TRUE);
  if (cinfo->image_width != part->tile_width || cinfo->image_height != part->tile_height || !is_ordinary(cinfo)) return REFUSED;
  if (!is_quantised(cinfo)) return REFUSED;
  cinfo->out_color_space = JCS_RGB;
  jpeg_start_decompress(cinfo);
  uint32_t margin = cinfo->max_h_samp_factor > 1 ? MARGIN : 0;
  JDIMENSION left = part->x > margin ? part->x - margin : 0;
  JDIMENSION right = part->x + part->width + margin < part->tile_width ? part->x + part->width + margin : part->tile_width;
  JDIMENSION width = right - left;
  jpeg_crop_scanline(cinfo, &left, &width);
  take_over(self, left, width);
  if (part->y) jpeg_skip_scanlines(cinfo, part->y);
  read_rows(self, part, (size_t)(part->x - left) * 3, out, pitch);
  return patho_scan_finish(self->scan) ? DECODED : REFUSED; /* damage anywhere in a tile counts */
}

/* `out` is where the part's first pixel goes, `pitch` the bytes from one row there to the next, or `averager` an `Averager` of area.rs
 * that takes `first` rows first, 1 to ROWS; `scan` is a `Scan` of scan.rs. */
int patho_jpeg_decode(struct patho_jpeg *self, void *scan, struct patho_bytes head, struct patho_bytes body, const struct patho_part *part, uint8_t *out,
                      size_t pitch, void *averager, uint32_t first) {
  size_t needed = (size_t)part->tile_width * 3 * ROWS;
  if (self->scratch_size < needed) {
    free(self->scratch);
    self->scratch = malloc(needed);
    self->scratch_size = self->scratch ? needed : 0;
    if (!self->scratch) return REFUSED;
  }
  self->source.next_input_byte = head.start;
  self->source.bytes_in_buffer = head.size;
  self->rest = body;
  self->scan = scan;
  self->averager = averager;
  self->first = first;
  volatile int verdict = REFUSED;
  if (!setjmp(self->escape)) verdict = decode(self, part, out, pitch);
  jpeg_abort_decompress(&self->cinfo);
  return verdict;
}
