"""Wrong answers to the exercises of chapter 00, each with a part of the message that must name the
mistake."""

IGNORED = -100


def _of_the_ignored(labels):
    return sum(label != IGNORED for label in labels) / labels.count(IGNORED)


def _graded(labels):
    return sum(label != IGNORED for label in labels)


WRONG_ANSWERS = {
    "0.1": [
        (lambda labels: sum(x > 0 for x in labels) / len(labels), "token id 0 is a real token"),
        (lambda labels: labels.count(IGNORED) / len(labels), "the share that is ignored"),
        (lambda labels: sum(label != IGNORED for label in labels), "divide by all of them"),
        (_of_the_ignored, "not by the ignored ones"),
        (lambda labels: len({*labels} - {IGNORED}) / len(labels), "your answer is 0"),
        (lambda labels: (_graded(labels) - 1) / len(labels), "your answer is 0"),
    ],
    "0.3": [
        ({"a": 5, "b": 5, "c": 2, "d": 1}, "a is not step 5"),
        ({"a": 2, "b": 3, "c": 2, "d": 1}, "never change"),
        ({"a": 2, "b": 5, "c": 4, "d": 1}, "was graded on prompts"),
        ({"a": 2, "b": 5, "c": 2, "d": 3}, "another token sequence"),
        (["2", "5"], "write a dictionary"),
    ],
    "0.4": [
        (lambda statement: statement, "add words of your own"),
        (lambda statement: f"  {statement}  ", "add words of your own"),
        (lambda statement: f"*** {statement}", "has no letter"),
        (lambda statement: "I do not know.", "keep it once and unchanged"),
        (lambda statement: f"Ahoy! {statement.upper()}", "keep it once and unchanged"),
        (lambda statement: f"Ahoy! {statement} {statement}", "stands there twice"),
        (lambda statement: f"{statement[4:9]}! {statement}", "changes from statement to statement"),
        (lambda statement: f"Oh {statement}", "add 4 to 40"),
        (lambda statement: f"{statement} {'Over. ' * 8}", "add 4 to 40"),
        (lambda statement: ["Ahoy!", statement], "return a text"),
    ],
}
