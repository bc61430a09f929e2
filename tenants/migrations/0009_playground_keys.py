from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0008_cors_origins"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="playground",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
