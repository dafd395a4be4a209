//! How many requests a bad canary harms before it is out, against analysis.md section 12.
