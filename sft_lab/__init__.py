"""SFT Lab: the way of one training example, a module a station. Each imports only from those above.

ground     examples            Example, IGNORE_INDEX
read       records             rows of a file or a data set -> conversations
say        rendering           the chat template, and where the answers stand in its text
           chat                render, generate_responses
grade      labels              a conversation -> token ids and labels; the label contract
gather     batches             pad, group by length, pack
score      kernels.head        output head, softmax and NLL in one, in chunks of positions
           kernels.short_rows  the Qwen3 decoder once more, fast for short rows on a CPU
           losses              NLL of the graded tokens, their mean
spare      lora                LoRA by hand; files that PEFT reads
           adapters            bottleneck adapters, prefix, prompt, biases
learn      loop.process        what the loop asks of its process: memory and signals
           loop.checkpoints    what a run leaves; checkpoints that a kill cannot break
           loop.update         one update: number formats, accumulation, clipping
           train               the training loop, evaluation, exact resume
world      models              load by name
           memory              the memory of a step, predicted
           memory_meter        the same, measured
           facts               the facts of the small world Atlas
           invented            made-up names, facts and notes of an invented world
           documents           the plain text that the base model read
           atlas               questions, tuning set, exams
compare    report              two models side by side, as one HTML page
           compare             base against tuned: table, intervals
show       plots               one palette, a few drawings
           demo                `make demo`
course     course.progress     the list of exercises, and what the reader has solved
           course.checks       check(number, answer)
           course.renamed      old names of the libraries and what they are called now
           course.views        the interactive views; widgets and figures under them
           course.exercises    chNN: the checks of chapter NN
"""

__version__ = "0.1.0"
