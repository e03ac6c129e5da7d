"""The built-in passes: name to `module:Class`, loaded only when asked for."""

from collections.abc import Mapping

CATALOG: Mapping[str, str] = {
    "fold-batchnorm": "lmopt_passes.fold_batchnorm:FoldBatchnorm",
    "scale-width": "lmopt_passes.scale_width:ScaleWidth",
    "insert-pool": "lmopt_passes.insert_pool:InsertPool",
    "remove-pool": "lmopt_passes.remove_pool:RemovePool",
    "resize-input": "lmopt_passes.resize_input:ResizeInput",
    "drop-block": "lmopt_passes.drop_block:DropBlock",
    "factorize": "lmopt_passes.factorize:Factorize",
    "fuse-block": "lmopt_passes.fuse_block:FuseBlock",
    "substitute-activation": "lmopt_passes.substitute_activation:SubstituteActivation",
    "prune": "lmopt_passes.prune:Prune",
    "finetune": "lmopt_passes.finetune:Finetune",
    "debias": "lmopt_passes.debias:Debias",
    "legalize": "lmopt_passes.legalize:Legalize",
    "split-head": "lmopt_passes.split_head:SplitHead",
    "center-output": "lmopt_passes.center_output:CenterOutput",
    "equalize": "lmopt_passes.equalize:Equalize",
    "to-float16": "lmopt_passes.to_float16:ToFloat16",
    "quantize-int8": "lmopt_passes.quantize_int8:QuantizeInt8",
    "quantize-uint8": "lmopt_passes.quantize_uint8:QuantizeUint8",
    "quantize-int16": "lmopt_passes.quantize_int16:QuantizeInt16",
    "quantize-mixed": "lmopt_passes.quantize_mixed:QuantizeMixed",
    "qat": "lmopt_passes.qat:Qat",
}
