"""Judge whether the relation happened: yes-or-no questions by likelihood, graded answers, and the judge's accuracy.

`questions` words them, `answers` asks and caches, `verdicts` concludes, `graded` reads grades, `accuracy` compares with
people's labels, `page` makes the page to label on. `training/host_diffusers/vision_language` opens the model.
"""
