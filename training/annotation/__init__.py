"""Raw pictures to triplets: boxes, masks, joints, the sentence, and gates that judge each triplet.

raw          reads folders of raw pictures.             options, thresholds   settings and the gates' numbers.
backends     protocols of the models.                   store, stages         each model over all pictures, cached.
choose       assigns boxes to names.                    masks, joints         clean masks, joints that count.
measures     compares two pictures of a subject.        gates                 numbers to pass, warn or reject.
labelme, coco, edits   files that people edit.          write, review, report files of the result.
annotate     runs all of it in order.
"""
