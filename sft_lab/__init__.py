"""SFT Lab: the way of one training example, a module a station. Each imports only from those above.

ground     examples               Example, IGNORE_INDEX
           formats                numbers as text
           files                  files and folders that are there whole or not at all
           pages                  the frame of the HTML pages, filled in
           arguments              numbers that a caller gives, checked
read       row_files              the rows of a JSON, JSONL or CSV file
           row_keys               what becomes of each key of a row
           row_shapes             which columns are the question and the answer
           records                rows of a file or a data set -> conversations
           instructions           the course's own instructions, in English and Chinese
           duplicates             near-duplicates, and exam questions in a tuning set
say        reasoning              thoughts beside an answer, as a template writes them
           templates              the chat template and the text it writes
           control                control tokens: which they are, and that no message forges one
           rendering              text, ids, and where the answers stand in them
           stopping               a tuned model names the token it was taught to stop at
           chat                   render, generate_responses
speak      decoding               from logits to a token: processors, beams
grade      labels                 a conversation -> token ids and labels; the label contract
gather     batches                pad, group by length, pack
score      undisturbed            try something on a model and leave no trace
           token_losses           weighted, focal, smoothed, DFT: other losses than NLL
           kernels.plain          whether a module's forward pass may be replaced
           kernels.head           output head, softmax and loss in one, in chunks of positions
           kernels.short_rows     the Qwen3 decoder once more, fast for short rows on a CPU
           losses                 NLL of the graded tokens, another loss, their mean
spare      shapes                 what a config alone says: layers, widths, parameters
           fingerprint            whether weights are those that an adapter was trained on
           lora                   LoRA by hand; files that PEFT reads
           adapters               bottleneck adapters, prefix, prompt, biases
           costs                  what a way of tuning costs: training, storage, serving
           low_rank               how much of a matrix a lower rank keeps
learn      loop.plan              which examples meet in which step
           loop.penalties         what a penalty is, that a run adds to its loss
           loop.settings          settings of a run that would teach nothing, or something else
           loop.limits            before the first step: can the model take these rows at all?
           loop.probes            before the first step: does the loop score this model rightly?
           loop.process           what the loop asks of its process: memory and signals
           loop.checkpoints       what a run leaves; checkpoints that a kill cannot break
           loop.output            the folder of a run: one run at a time, room, nothing lost
           loop.update            one update: number formats, accumulation, clipping
           train                  the training loop, evaluation, exact resume
           distill                a student learns a teacher's probabilities
keep       forgetting             what keeps an old task: EWC, SI, L2, distillation, replay
           columns                a new column beside a frozen model, for a new task
world      gguf_header            the tensors that a GGUF file lists
           gguf_files             a tuned model as one GGUF file
           models                 load by name
           memory                 the memory of a step, predicted
           memory_meter           the same, measured
           cards                  does a step fit a card, and what to change
           facts                  the facts of the small world Atlas
           invented               made-up names, facts and notes of an invented world
           documents              the plain text that the base model read
           atlas                  questions, tuning set, exams
           lessons                lessons that teach one thing each, and their exams
judge      metrics                right answers and classes, how sure a model is, what it repeats
           overlap                words in common with a reference: BLEU, ROUGE, chrF
           alignment              words paired with those of a reference: METEOR
           perplexity             how likely a text is: perplexity, bits per byte, token accuracy
           battery                general abilities, by the likelihood of choices
           abstention             when to say nothing: refusals, confidence, risk and coverage
           open_answers           open questions, and what a program can check of an answer
           significance           what chance can do: paired tests, bootstrap, verdicts
           study_plan             what is decided before a run, sealed, and what it then decides
           measures               scores by name, of two models' answers, with intervals
           diagnostics            probes of a run: what a healthy one answers
           judges                 judges of two answers with a planted bias; agreement beyond chance
lookup     retrieval              passages found for a question, and answers from them
compare    report                 two models side by side, as one HTML page
           compare                base against tuned: table, intervals
examine    findings               what an examination found: table, page, exit code
           doctor.causes          the words of each finding about tokens and files
           doctor.refusals        why a row cannot be encoded, as a code
           doctor.tokens          what a tokenizer and its template make of rows
           doctor.saved           what the files of a model and an adapter say
           doctor.texts           what the text of one row shows by itself
           doctor.twins           near-duplicates among a hundred thousand texts
           doctor.rows            what rows show beside each other, and an exam beside them
           doctor.checks          the checks of a row, and the tokenizer they need
           doctor.shares          many rows, shared between two processes
           doctor.worker          the second of the two
           doctor.examine         the whole examination: diagnose
           doctor.command         `sft-lab doctor`
           doctor.__main__        python -m sft_lab.doctor
reinforce  policy                 from rewards to a loss: advantages, clipping, KL, averages
           rollouts               answers drawn in groups, and the loop: REINFORCE, GRPO, PPO
show       plots                  one palette, a few drawings
           kept_back              questions of a file that are asked and never learned
           demo                   `make demo`
           compare_command        `sft-lab compare`: two models, asked from a shell
           project                a project notebook for your own file: `sft-lab new`
           cli                    `sft-lab`: the commands under one name
course     course.progress        the list of exercises, and what the reader has solved
           course.results         recorded sweeps: a measured row for each setting and seed
           course.data_mix        data sets to mix, and a short run on each
           course.data_runs       a leaked exam, a teacher, the best of K
           course.recipe_runs     chapters 09 and 09b: one exam, two recipes, and what tuning leaves
           course.short_runs      a copy of the base learns for seconds, and is asked
           course.moment_runs     chapter 00: a training looked at on its way, a form of answer
           course.label_runs      chapter 03: runs that differ in their labels, and what they read
           course.mask_runs       chapter 03b: what the prompt weighs, trained to the end
           course.plain_loop      chapter 04: the loop of SFT in three small functions
           course.resume_runs     chapter 04b: a short run, cut, which goes on
           course.part_runs       chapter 06: six ways of tuning on one task
           course.same_run        chapter 07: TRL's trainer as our run, and five wrong ones
           course.time_runs       chapter 07b: one run in several ways, timed against each other
           course.loss_runs       chapter 12: runs that differ in their loss alone
           course.lora_runs       chapter 05: runs with LoRA, and models that never stop
           course.factory         LLaMA-Factory's commands, run or replayed from a recording
           course.factory_worker  runs inside LLaMA-Factory's environment: labels, many runs
           course.factory_keys    settings of LLaMA-Factory: files, comments, old and new names
           course.forgetting_runs  chapters 13 and 13b: task A, then task B, and what is left
           course.cause_runs      chapter 13: task B learned with one thing changed
           course.remedies        chapter 13b: every remedy on the same two tasks
           course.repeat_runs     chapter 14: what repeats itself, and what makes it
           course.decoding_runs   chapter 14b: one model under many settings of decoding
           course.unknown_runs    chapter 15: lessons about what the base never read
           course.lookup_runs     chapter 15b: passages, refusals, checks and prompts, measured
           course.score_runs      chapter 16b: outputs whose truth is known, their scores, attacks
           course.evaluation_runs  chapter 16c: an exam, its runs, and how sure they are
           course.judge_runs      chapter 16d: the audit of a judge, its repairs, a blind sheet
           course.policy_runs     chapter 17: long and short answers, one push, tiny broken runs
           course.reward_runs     chapter 17b: one task learned from lessons and from rewards
           course.curve_runs      chapter 18: short runs with one planted cause, and their curves
           course.probe_runs      chapter 18b: healthy runs, and runs with a planted fault
           course.zoo             chapter 18c: a small run as a chain of stations
           course.zoo_bugs        chapter 18c: real bugs, each an exchanged line of a station
           course.zoo_table       chapter 18c: case files, and which probe sees which bug
           course.zoo_files       chapter 18c: files without names, and what contradicts a diagnosis
           course.zoo_doctor      chapter 18c: those bugs that lie in files, for the doctor
           course.project_runs    chapter 19: a project from its file to its verdict
           course.serving         chapter 19b: a server, started, waited for and always ended
           course.deploy_runs     chapter 19b: a model packed, served and asked by other engines
           course.exercises.kit   what all checks share: comparing, guarding, random inputs
           course.exercises.chNN  the checks of the exercises of chapter NN
           course.checks          check(number, answer)
           course.renamed         old names of the libraries and what they are called now
           course.head_training   a run small enough for a slider: the output head alone
           course.views.widgets   the frame of a view: controls, one picture, the same in words
           course.views.moment    chapter 00: cards through the training, a question of your own
           course.views.story     chapter 00: tokens read, questions answered, what comes next
           course.views.step      chapter 01: one step of prediction
           course.views.chat      chapter 02: a conversation as the model reads it
           course.views.xray      chapter 03: which tokens are graded
           course.views.mask      chapter 03b: what the prompt weighs, and the runs of each weight
           course.views.ladder    chapter 07: one run, with one switch moved
           course.views.way       chapter 07b: what each change of a training loop wins
           course.views.schedule  chapter 04: learning rate and batches
           course.views.training  chapters 04 and 04b: the loop, its rates, a run that is cut
           course.views.rank      chapter 05: an update of low rank
           course.views.lora      chapter 05: cut updates, and rates with and without LoRA
           course.views.choice    chapter 06: what each method costs
           course.views.parts     chapter 06: what each method learns and disturbs
           course.views.fit       chapter 08: what fits on a card
           course.views.memory    chapter 08: a step's memory over time; what a card said
           course.views.blind     chapter 09: two answers, names hidden
           course.views.exam      chapter 09: who answers when asked how, and what was kept
           course.views.sure      chapter 09b: pairs, resamples, seeds, calibration
           course.views.workflow  chapter 10: the files between LLaMA-Factory's commands
           course.views.factory   chapter 10: a run of LLaMA-Factory, and the card it needs
           course.views.mix       chapter 11: a data set to mix, and its score
           course.views.wordings  chapter 11b: in how many ways a fact was told, and asked
           course.views.weight    chapter 12: what a token weighs under each loss
           course.views.overwrite  chapter 13: steps of task B, and what is left of task A
           course.views.forgetting  chapter 13b: remedies on the plane of old and new task
           course.views.repeats   chapter 14: a text that is said again and again
           course.views.decoding  chapter 14b: logits of a step, bent, and the text that grows
           course.views.threshold  chapter 15: a threshold on a model's own confidence
           course.views.lookup    chapter 15b: a question, its passages, and two thresholds
           course.views.overlap   chapter 16: two sentences, and what each score finds in both
           course.views.jury      chapter 16d: a blind sheet, and programs that vote on it
           course.views.push      chapter 17: one group of answers, and the push on every token
           course.views.curves    chapter 18: loss curves without names and with them
           course.views.clinic    chapter 18c: a case file, and a cause to choose
           course.views.ship      chapter 19b: which engine reads which file of a model
"""

__version__ = "0.1.0"
