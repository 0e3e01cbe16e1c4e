"""Columns of the Delta tables: Databricks' own first, same names and types, then Noria's.

Sources: Databricks' inference table and data-profiling (monitoring) table references.
"""

import pyarrow as pa

_TIME = pa.timestamp("us", tz="UTC")
_WINDOW = pa.struct([("start", _TIME), ("end", _TIME)])
_BY_CLASS = pa.struct(
    [("one_vs_all", pa.map_(pa.string(), pa.float64())), ("macro", pa.float64()), ("weighted", pa.float64())]
)
_CONFUSED = pa.struct([("prediction", pa.string()), ("label", pa.string()), ("count", pa.int64())])
_TEST = pa.struct([("statistic", pa.float64()), ("pvalue", pa.float64())])

INFERENCE = pa.schema(
    [
        ("databricks_request_id", pa.string()),
        ("request_date", pa.date32()),
        ("client_request_id", pa.string()),
        ("request_time", _TIME),
        ("status_code", pa.int32()),
        ("sampling_fraction", pa.float64()),
        ("execution_duration_ms", pa.int64()),
        ("request", pa.string()),
        ("response", pa.string()),
        ("logging_error_codes", pa.list_(pa.string())),
        ("served_entity_id", pa.string()),
        ("requester", pa.string()),
        ("endpoint", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("route", pa.string()),  # champion, canary or shadow
        ("outcome", pa.string()),
        ("finished_time", _TIME),
        ("ttft_ms", pa.float64()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("metadata", pa.map_(pa.string(), pa.string())),
        ("shadow_of", pa.string()),
        ("policy_hash", pa.string()),
        ("spool", pa.string()),
        ("sequence", pa.int64()),  # of the outcome
        ("tries", pa.int32()),  # requests that were sent to model servers for this answer
        ("cache_hit", pa.bool_()),
        ("cost_usd", pa.float64()),
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_span_id", pa.string()),
    ]
)
"""One row for each request, written when its outcome is known."""

FEEDBACK = pa.schema(
    [
        ("feedback_id", pa.string()),
        ("request_id", pa.string()),
        ("endpoint", pa.string()),
        ("feedback_date", pa.date32()),
        ("feedback_time", _TIME),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("comment", pa.string()),
        ("source", pa.string()),
        ("spool", pa.string()),
        ("sequence", pa.int64()),
    ]
)
"""What people and judges said of answers."""

DEAD_LETTER = pa.schema(
    [
        ("spool", pa.string()),
        ("sequence", pa.int64()),
        ("found_time", _TIME),
        ("reason", pa.string()),
        ("payload", pa.binary()),
    ]
)
"""Entries that could not be read back, with the reason: never dropped."""

_SLICE = [
    ("window", _WINDOW),
    ("endpoint", pa.string()),
    ("model_id", pa.string()),  # `*` for all
    ("granularity", pa.string()),
    ("monitor_version", pa.int32()),
    ("slice_key", pa.string()),
    ("slice_value", pa.string()),
    ("column_name", pa.string()),  # `:table` for the whole row
    ("data_type", pa.string()),
]

MONITOR_STATES = pa.schema(
    [
        *_SLICE,
        ("summed", pa.bool_()),  # from the states of shorter windows, not from records
        ("cells", pa.string()),  # digest of the frozen cells that the values were counted in; null for none
        ("count", pa.int64()),
        ("state", pa.binary()),
    ]
)
"""What monitors know of each window, model, slice and column: counts and sketches, which merge by addition."""

PROFILE_METRICS = pa.schema(
    [
        *_SLICE,
        ("log_type", pa.string()),
        ("logging_table_commit_version", pa.int64()),
        ("count", pa.int64()),
        ("num_nulls", pa.int64()),
        ("avg", pa.float64()),
        ("quantiles", pa.list_(pa.float64())),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("stddev", pa.float64()),
        ("num_zeros", pa.int64()),
        ("num_nan", pa.int64()),
        ("min_length", pa.float64()),
        ("max_length", pa.float64()),
        ("avg_length", pa.float64()),
        ("non_null_columns", pa.list_(pa.string())),
        ("frequent_items", pa.list_(pa.struct([("item", pa.string()), ("count", pa.int64())]))),
        ("median", pa.float64()),
        ("distinct_count", pa.int64()),
        ("percent_nan", pa.float64()),
        ("percent_null", pa.float64()),
        ("percent_zeros", pa.float64()),
        ("percent_distinct", pa.float64()),
        ("accuracy_score", pa.float64()),
        ("precision", _BY_CLASS),
        ("recall", _BY_CLASS),
        ("f1_score", _BY_CLASS),
        ("roc_auc_score", _BY_CLASS),
        ("log_loss", pa.float64()),
        ("confusion_matrix", pa.list_(_CONFUSED)),
        ("low", pa.float64()),  # 95% interval of avg, in rows of what was measured: quality.NAME
        ("high", pa.float64()),
    ]
)
"""One row for each window and column."""

DRIFT_METRICS = pa.schema(
    [
        *_SLICE,
        ("window_cmp", _WINDOW),
        ("drift_type", pa.string()),  # CONSECUTIVE or BASELINE
        ("count_delta", pa.int64()),
        ("avg_delta", pa.float64()),
        ("percent_null_delta", pa.float64()),
        ("percent_zeros_delta", pa.float64()),
        ("percent_distinct_delta", pa.float64()),
        ("non_null_columns_delta", pa.struct([("added", pa.int64()), ("missing", pa.int64())])),
        ("js_distance", pa.float64()),
        ("ks_test", _TEST),
        ("wasserstein_distance", pa.float64()),
        ("population_stability_index", pa.float64()),
        ("chi_squared_test", _TEST),
        ("tv_distance", pa.float64()),
        ("l_infinity_distance", pa.float64()),
        ("monitor", pa.string()),
        ("rows_seen", pa.int64()),  # since the baseline began
        ("e_value", pa.float64()),
        ("log_e", pa.float64()),
        ("log_threshold", pa.float64()),
        ("mean", pa.float64()),  # of the window's values, where they are numbers
    ]
)
"""One row for each window, monitor and comparison; only the e-value alarms."""

DATASET_ROWS = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.string()),  # for a chat the wanted answer
        ("group", pa.string()),
        ("origin", pa.string()),  # baseline (the project's own data) or production
        ("request_id", pa.string()),
        ("time", _TIME),
        ("messages", pa.string()),  # JSON of the chat before the wanted answer; null for classification
        ("rejected", pa.string()),  # the answer that was given and corrected; null for none
    ]
)
"""What a run's `train.parquet` and `holdout.parquet` hold."""

DATASETS = pa.schema(
    [
        ("endpoint", pa.string()),
        ("run_id", pa.string()),
        ("frozen_time", _TIME),
        ("split", pa.string()),  # train or holdout
        *DATASET_ROWS,
    ]
)
"""What each run learnt from and held out; a run's rows are written once and never changed."""

SCHEMAS = {
    "inference": INFERENCE,
    "feedback": FEEDBACK,
    "dead_letter": DEAD_LETTER,
    "monitor_states": MONITOR_STATES,
    "profile_metrics": PROFILE_METRICS,
    "drift_metrics": DRIFT_METRICS,
    "datasets": DATASETS,
}
TIME_COLUMN = {
    "inference": "request_time",
    "feedback": "feedback_time",
    "dead_letter": "found_time",
    "monitor_states": "window.start",
    "profile_metrics": "window.start",
    "drift_metrics": "window.start",
    "datasets": "frozen_time",
}
PARTITION = {"inference": ["request_date"], "feedback": ["feedback_date"]}
"""Columns that split a table into folders."""
