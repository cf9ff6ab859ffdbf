#pragma once

// The weights of a model and the one list of tensors: every tensor is named, shaped and described
// in VisitTensors and nowhere else; loading, verifying, inspecting and synthesising walk that list.

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "model/config.h"
#include "tensor/matrix.h"

namespace toaster {

/// The hash-routing table [vocabulary, experts per token] of I64, seen in place.
struct IndexTable {
  int64_t rows = 0;
  int64_t columns = 0;
  const uint8_t* data = nullptr;  ///< any alignment

  int64_t At(int64_t row, int64_t column) const {
    return LoadUnaligned<int64_t>(data + 8 * (row * columns + column));
  }
};

/// Hyper-connection parameters of one sub-layer (fn [(2+n)n, n*d], base [(2+n)n], scale [3]) or of
/// a head (fn [n, n*d], ...).
struct HyperWeights {
  Matrix fn;
  Vector base;
  Vector scale;
};

/// Compressor of a layer or of its indexer. wkv, wgate: [k*D, d]; ape [ratio, k*D]; norm [D]; k = 2
/// for ratio 4, else 1.
struct CompressorWeights {
  Matrix ape;
  Matrix wkv;
  Matrix wgate;
  Vector norm;
};

struct IndexerWeights {
  Matrix wq_b;          ///< [index heads * index head size, q_lora]
  Matrix weights_proj;  ///< [index heads, d]
  CompressorWeights compressor;
};

struct AttentionWeights {
  Matrix wq_a;  ///< [q_lora, d]
  Vector q_norm;
  Matrix wq_b;  ///< [heads * head size, q_lora]
  Matrix wkv;   ///< [head size, d]
  Vector kv_norm;
  Vector attn_sink;              ///< [heads]
  Matrix wo_a;                   ///< [groups * rank, heads * head size / groups]
  Matrix wo_b;                   ///< [d, groups * rank]
  CompressorWeights compressor;  ///< empty where the ratio is 0
  IndexerWeights indexer;        ///< empty where the ratio is not 4
};

/// w1 = gate [f, d], w3 = up [f, d], w2 = down [d, f].
struct ExpertWeights {
  Matrix w1;
  Matrix w2;
  Matrix w3;
};

struct MoeWeights {
  Matrix gate;         ///< router [experts, d]
  Vector bias;         ///< [experts]; empty in hash-routed layers
  IndexTable tid2eid;  ///< empty elsewhere
  std::vector<ExpertWeights> experts;
  ExpertWeights shared;
};

struct BlockWeights {
  HyperWeights hc_attn;
  HyperWeights hc_ffn;
  Vector attn_norm;
  Vector ffn_norm;
  AttentionWeights attn;
  MoeWeights ffn;
};

/// A draft (MTP) block and what stands around it.
struct DraftWeights {
  BlockWeights block;
  Matrix e_proj;  ///< [d, d]
  Matrix h_proj;  ///< [d, d]
  Vector enorm;
  Vector hnorm;
  Vector norm;
  HyperWeights hc_head;
};

struct ModelWeights {
  Matrix embed;  ///< [vocabulary, d]
  Matrix head;   ///< [vocabulary, d]
  Vector norm;
  HyperWeights hc_head;
  std::vector<BlockWeights> layers;
  std::vector<DraftWeights> drafts;

  /// Block `index`: main layers, then draft blocks.
  const BlockWeights& block(int64_t index) const {
    const auto at = static_cast<size_t>(index);
    return at < layers.size() ? layers[at] : drafts[at - layers.size()].block;
  }
};

/// What a tensor is, and so which stored types it may have.
enum class TensorRole {
  kLinear,        ///< E4M3 with 128x128 scales, or BF16
  kExpertLinear,  ///< packed E2M1 (stored as I8) with 1x32 scales, E4M3 with 128x128 scales, or
                  ///< BF16
  kBf16Matrix,    ///< BF16 (embedding, head, router, compressor, weights_proj)
  kFloatMatrix,   ///< F32 (hyper-connection fn, ape)
  kNorm,          ///< BF16 vector
  kFloatVector,   ///< F32 vector (biases, sinks, base, scale)
  kIndexTable,    ///< I64 matrix
};

/// Name and logical shape of a tensor. A scaled one has a companion scale tensor: ScaleName().
struct TensorSpec {
  std::string name;
  TensorRole role;
  int64_t rows = 0;
  int64_t columns = 0;  ///< logical inputs (before packing); 0 for a vector
  int block = -1;       ///< 0.. main layers, then draft blocks; -1 for the root tensors
  bool routed_expert = false;
};

/// `x.weight` -> `x.scale`.
inline std::string ScaleName(const std::string& weight_name) {
  return weight_name.substr(0, weight_name.size() - 6) + "scale";
}

namespace internal {

template <typename Visitor>
class TensorWalk {
 public:
  TensorWalk(const Config& config, Visitor& visit) : c_(config), visit_(visit) {}

  template <typename Model>
  void Walk(Model& model) {
    const int64_t d = c_.hidden_size;
    Give("embed.weight", TensorRole::kBf16Matrix, c_.vocab_size, d, model.embed);
    Give("head.weight", TensorRole::kBf16Matrix, c_.vocab_size, d, model.head);
    Give("norm.weight", TensorRole::kNorm, d, 0, model.norm);
    Hyper("hc_head", c_.hc_mult, 1, model.hc_head);
    for (size_t i = 0; i < model.layers.size(); ++i) {
      block_ = static_cast<int>(i);
      Block(fmt::format("layers.{}.", i), model.layers[i]);
    }
    for (size_t i = 0; i < model.drafts.size(); ++i) {
      block_ = static_cast<int>(model.layers.size() + i);
      const std::string p = fmt::format("mtp.{}.", i);
      auto& draft = model.drafts[i];
      Block(p, draft.block);
      Give(p + "e_proj.weight", TensorRole::kLinear, d, d, draft.e_proj);
      Give(p + "h_proj.weight", TensorRole::kLinear, d, d, draft.h_proj);
      Give(p + "enorm.weight", TensorRole::kNorm, d, 0, draft.enorm);
      Give(p + "hnorm.weight", TensorRole::kNorm, d, 0, draft.hnorm);
      Give(p + "norm.weight", TensorRole::kNorm, d, 0, draft.norm);
      Hyper(p + "hc_head", c_.hc_mult, 1, draft.hc_head);
    }
  }

 private:
  template <typename Field>
  void Give(const std::string& name, TensorRole role, int64_t rows, int64_t columns, Field& field,
            bool routed_expert = false) {
    visit_(TensorSpec{name, role, rows, columns, block_, routed_expert}, field);
  }

  template <typename Field>
  void Hyper(const std::string& p, int64_t rows, int64_t scales, Field& hyper) {
    Give(p + "_fn", TensorRole::kFloatMatrix, rows, c_.hc_mult * c_.hidden_size, hyper.fn);
    Give(p + "_base", TensorRole::kFloatVector, rows, 0, hyper.base);
    Give(p + "_scale", TensorRole::kFloatVector, scales, 0, hyper.scale);
  }

  template <typename Field>
  void Compressor(const std::string& p, int64_t ratio, int64_t width, Field& compressor) {
    const int64_t rows = ratio == 4 ? 2 * width : width;
    Give(p + "ape", TensorRole::kFloatMatrix, ratio, rows, compressor.ape);
    Give(p + "wkv.weight", TensorRole::kBf16Matrix, rows, c_.hidden_size, compressor.wkv);
    Give(p + "wgate.weight", TensorRole::kBf16Matrix, rows, c_.hidden_size, compressor.wgate);
    Give(p + "norm.weight", TensorRole::kNorm, width, 0, compressor.norm);
  }

  template <typename Field>
  void Expert(const std::string& p, bool routed, Field& expert) {
    const TensorRole role = routed ? TensorRole::kExpertLinear : TensorRole::kLinear;
    const int64_t d = c_.hidden_size, f = c_.moe_intermediate_size;
    Give(p + "w1.weight", role, f, d, expert.w1, routed);
    Give(p + "w2.weight", role, d, f, expert.w2, routed);
    Give(p + "w3.weight", role, f, d, expert.w3, routed);
  }

  template <typename Field>
  void Block(const std::string& p, Field& block) {
    const int64_t d = c_.hidden_size, n = c_.hc_mult, heads = c_.num_attention_heads;
    const int64_t ratio = c_.ratio(block_);
    Hyper(p + "hc_attn", (2 + n) * n, 3, block.hc_attn);
    Hyper(p + "hc_ffn", (2 + n) * n, 3, block.hc_ffn);
    Give(p + "attn_norm.weight", TensorRole::kNorm, d, 0, block.attn_norm);
    Give(p + "ffn_norm.weight", TensorRole::kNorm, d, 0, block.ffn_norm);
    auto& attn = block.attn;
    const std::string a = p + "attn.";
    Give(a + "wq_a.weight", TensorRole::kLinear, c_.q_lora_rank, d, attn.wq_a);
    Give(a + "q_norm.weight", TensorRole::kNorm, c_.q_lora_rank, 0, attn.q_norm);
    Give(a + "wq_b.weight", TensorRole::kLinear, heads * c_.head_dim, c_.q_lora_rank, attn.wq_b);
    Give(a + "wkv.weight", TensorRole::kLinear, c_.head_dim, d, attn.wkv);
    Give(a + "kv_norm.weight", TensorRole::kNorm, c_.head_dim, 0, attn.kv_norm);
    Give(a + "attn_sink", TensorRole::kFloatVector, heads, 0, attn.attn_sink);
    Give(a + "wo_a.weight", TensorRole::kLinear, c_.o_groups * c_.o_lora_rank,
         heads * c_.head_dim / c_.o_groups, attn.wo_a);
    Give(a + "wo_b.weight", TensorRole::kLinear, d, c_.o_groups * c_.o_lora_rank, attn.wo_b);
    if (ratio != 0) Compressor(a + "compressor.", ratio, c_.head_dim, attn.compressor);
    if (ratio == 4) {
      Give(a + "indexer.wq_b.weight", TensorRole::kLinear, c_.index_n_heads * c_.index_head_dim,
           c_.q_lora_rank, attn.indexer.wq_b);
      Give(a + "indexer.weights_proj.weight", TensorRole::kBf16Matrix, c_.index_n_heads, d,
           attn.indexer.weights_proj);
      Compressor(a + "indexer.compressor.", 4, c_.index_head_dim, attn.indexer.compressor);
    }
    auto& ffn = block.ffn;
    const std::string f = p + "ffn.";
    Give(f + "gate.weight", TensorRole::kBf16Matrix, c_.n_routed_experts, d, ffn.gate);
    if (c_.hash_routed(block_)) {
      Give(f + "gate.tid2eid", TensorRole::kIndexTable, c_.vocab_size, c_.num_experts_per_tok,
           ffn.tid2eid);
    } else {
      Give(f + "gate.bias", TensorRole::kFloatVector, c_.n_routed_experts, 0, ffn.bias);
    }
    for (size_t e = 0; e < ffn.experts.size(); ++e) {
      Expert(fmt::format("{}experts.{}.", f, e), true, ffn.experts[e]);
    }
    Expert(f + "shared_experts.", false, ffn.shared);
  }

  const Config& c_;
  Visitor& visit_;
  int block_ = -1;
};

}  // namespace internal

/// A ModelWeights with every vector sized for `config` and every view empty.
ModelWeights EmptyWeights(const Config& config);

/// Calls visit(const TensorSpec&, field&) for every tensor of the model; field is a Matrix, Vector
/// or IndexTable of `model` (sized as by EmptyWeights). Order: root, layers, drafts.
template <typename Model, typename Visitor>
void VisitTensors(const Config& config, Model& model, Visitor&& visit) {
  internal::TensorWalk<std::remove_reference_t<Visitor>>(config, visit).Walk(model);
}

/// The same list without weights.
std::vector<TensorSpec> ListTensors(const Config& config);

}  // namespace toaster
