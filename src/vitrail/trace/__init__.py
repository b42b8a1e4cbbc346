"""Trace: one input walked through a model, frame by frame, with the numbers put into the formulas.

| call | gives |
|---|---|
| `record.record(model, *inputs)` | the calls of every module as a tree, with their tensors |
| `image_trace.trace_image(model, image)` | the frames of an image model: formula, shapes, cost and views |
| `lens.logit_lens(model, root)` | class scores after each block |
| `twins.twins(root)` | the readable reference of each attention and its kernel |
| `text_trace.trace_text(model, text)` | tokens, merges, attention, and the beam search of a translation model |
| `page.write_page(trace, path)` | one offline HTML page |
| `terminal.print_trace(trace)` | the same as a table |

The arrays of a page are the tensors of the model: fp32 and integers in base64, bit for bit.
"""
