"""What generated texts are worth by the protocols of the paper's tables: plain functions of texts. No torch.

Each function takes `predictions`, a text for each example, and `references`, for each example the texts that would be
right, and returns a float. The modules are the protocols: `e2e`, `generation_eval` (WebNLG and DART, as the authors
scored them), `dart` (as DART's own script scores), `samsum`, `wikisql` and `any_language` (responses to instructions).
`protocols` declares them for tasks and tables, with their signatures.
"""
