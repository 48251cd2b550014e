"""Whether it happened: yes-or-no questions by likelihood, graded answers, and how often the judge is right.

`questions` words them, `answers` asks and remembers, `verdicts` concludes, `graded` reads numbers, `accuracy` compares
with people's labels, `page` is where people label. The model is opened in `training/host_diffusers/vision_language`.
"""
