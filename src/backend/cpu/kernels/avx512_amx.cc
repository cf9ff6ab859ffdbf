// The same as avx512_fma.cc with AMX for the integer products of the indexer. Its BF16 products add
// in another order than all other tables and are not used.

#include <immintrin.h>

#include "backend/cpu/kernels/amx_candidates.h"
#include "backend/cpu/kernels/amx_index.h"
#include "backend/cpu/kernels/amx_tiles.h"
#include "backend/cpu/kernels/avx512_fused_table.h"

namespace toaster::kernels {

static constexpr KernelTable kTable = [] {
  KernelTable table = avx512::FusedTable("avx512_amx");
  table.index_scores = amx::IndexScores;
  table.index_candidates = amx::FindCandidates;
  table.spin_int8 = amx::SpinInt8;
  return table;
}();

const KernelTable& Avx512Amx() { return kTable; }

}  // namespace toaster::kernels
