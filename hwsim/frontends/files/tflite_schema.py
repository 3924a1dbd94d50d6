"""Numbers of TensorFlow Lite's schema.fbs, version 3: element types, operators, and the options that change a cost."""

from __future__ import annotations

# TensorType -> (numpy's name, bits, signed).
TYPES: dict[int, tuple[str, int, bool]] = {
    0: ("float32", 32, True),
    1: ("float16", 16, True),
    2: ("int32", 32, True),
    3: ("uint8", 8, False),
    4: ("int64", 64, True),
    6: ("bool", 1, False),
    7: ("int16", 16, True),
    8: ("complex64", 64, True),
    9: ("int8", 8, True),
    10: ("float64", 64, True),
    11: ("complex128", 128, True),
    12: ("uint64", 64, False),
    15: ("uint32", 32, False),
    16: ("uint16", 16, False),
    17: ("int4", 4, True),
    18: ("bfloat16", 16, True),
    19: ("int2", 2, True),
    20: ("uint4", 4, False),
    21: ("float8_e4m3fn", 8, True),
    22: ("float8_e5m2", 8, True),
}
# Handles and texts, which no arithmetic reads; further numbers are types of later versions.
HANDLES: dict[int, str] = {5: "string", 13: "resource", 14: "variant"}
CODES = ("int2", "int4", "uint4", "int8", "uint8", "int16", "uint16")
# BuiltinOperator, in the order of its numbers; later ones keep their number as a name.
NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM
MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS
SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND
TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT
LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL
LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW
ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV
REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS
SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG
ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND
HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS
RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD
UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT
STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP
STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL
STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT
STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE
STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT
STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW
STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""
OPERATORS: dict[int, str] = dict(enumerate(NAMES.split()))
ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
# Options of an operator: field number -> (name, struct format, default).
Options = dict[int, tuple[str, str, int]]
WINDOW: Options = {0: ("same", "b", 0), 1: ("stride_w", "i", 0), 2: ("stride_h", "i", 0)}
POOL: Options = {**WINDOW, 3: ("filter_w", "i", 0), 4: ("filter_h", "i", 0), 5: ("activation", "b", 0)}
VOLUME: Options = {
    0: ("same", "b", 0), 1: ("stride_d", "i", 0), 2: ("stride_w", "i", 0), 3: ("stride_h", "i", 0),
    4: ("activation", "b", 0), 5: ("dilation_d", "i", 1), 6: ("dilation_w", "i", 1), 7: ("dilation_h", "i", 1),
}  # fmt: skip
FUSED: Options = {0: ("activation", "b", 0)}
OPTIONS: dict[str, Options] = {
    "CONV_2D": {**WINDOW, 3: ("activation", "b", 0), 4: ("dilation_w", "i", 1), 5: ("dilation_h", "i", 1)},
    "DEPTHWISE_CONV_2D": {
        **WINDOW, 3: ("multiplier", "i", 0), 4: ("activation", "b", 0), 5: ("dilation_w", "i", 1),
        6: ("dilation_h", "i", 1),
    },
    "TRANSPOSE_CONV": {**WINDOW, 3: ("activation", "b", 0)},
    "CONV_3D": VOLUME,
    "CONV_3D_TRANSPOSE": VOLUME,
    "AVERAGE_POOL_2D": POOL,
    "MAX_POOL_2D": POOL,
    "L2_POOL_2D": POOL,
    "FULLY_CONNECTED": {
        0: ("activation", "b", 0), 1: ("weights_format", "b", 0), 2: ("keep_dims", "b", 0), 3: ("asymmetric", "b", 0),
    },
    "CONCATENATION": {0: ("axis", "i", 0), 1: ("activation", "b", 0)},
    "ADD": FUSED,
    "SUB": FUSED,
    "MUL": FUSED,
    "DIV": FUSED,
    "L2_NORMALIZATION": FUSED,
    "SVDF": {0: ("rank", "i", 0), 1: ("activation", "b", 0), 2: ("asymmetric", "b", 0)},
    "UNIDIRECTIONAL_SEQUENCE_RNN": {0: ("time_major", "b", 0), 1: ("activation", "b", 0), 2: ("asymmetric", "b", 0)},
    "UNIDIRECTIONAL_SEQUENCE_LSTM": {
        0: ("activation", "b", 0), 1: ("cell_clip", "i", 0), 3: ("time_major", "b", 0), 4: ("asymmetric", "b", 0),
    },
    "MEAN": {0: ("keep_dims", "b", 0)},
    "PACK": {1: ("axis", "i", 0)},
    "UNPACK": {1: ("axis", "i", 0)},
    "GATHER": {0: ("axis", "i", 0)},
    "LOCAL_RESPONSE_NORMALIZATION": {0: ("radius", "i", 0)},
    "BATCH_MATMUL": {0: ("transpose_left", "b", 0), 1: ("transpose_right", "b", 0), 2: ("asymmetric", "b", 0)},
    "SPLIT": {0: ("parts", "i", 0)},
    "IF": {0: ("then", "i", 0), 1: ("otherwise", "i", 0)},
    "WHILE": {0: ("condition", "i", 0), 1: ("body", "i", 0)},
    "CALL": {0: ("body", "I", 0)},
    "STABLEHLO_COMPOSITE": {1: ("body", "i", 0)},
    "MIRROR_PAD": {0: ("mode", "b", 0)},
}  # fmt: skip
