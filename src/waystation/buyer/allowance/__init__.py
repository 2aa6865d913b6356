"""Many small payments to one seller without a call to Temporal for each."""
